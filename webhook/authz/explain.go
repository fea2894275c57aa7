package authz

import (
	"context"
	"strconv"
	"strings"

	"github.com/keywright/keywright/webhook/trace"
)

// Explanation is a decision with how it came about.
type Explanation struct {
	Decision Decision
	// Steps in their order: what is known of the request, each rule that was
	// looked at, each place of a token, each check of the token, each
	// requirement and identity header. A step that is not OK either explains
	// why it went on elsewhere or, as the last of a denial, why it ended.
	Steps []trace.Step
}

// Explain decides about a request as Check does, by the very same steps, and
// tells them. It looks at the token anew instead of remembering it, and is
// neither counted nor seen in the metrics. Nothing of the token, of claims'
// values or of the query is in it.
func (g *Gate) Explain(_ context.Context, req Request) Explanation {
	steps := &trace.Trace{}
	d := g.check(&req, steps)
	return Explanation{Decision: d, Steps: steps.Steps()}
}

// String is a line for each step, and one for the decision.
func (e *Explanation) String() string {
	var b strings.Builder
	for _, step := range e.Steps {
		mark := "no   "
		if step.OK {
			mark = "ok   "
		}
		b.WriteString(mark + step.What)
		if step.Name != "" {
			b.WriteString(" " + step.Name)
		}
		if step.Detail != "" {
			b.WriteString(": " + step.Detail)
		}
		b.WriteByte('\n')
	}
	if e.Decision.Allowed {
		b.WriteString("allowed")
	} else {
		b.WriteString("denied with " + strconv.Itoa(e.Decision.Status) + ": " + e.Decision.Reason)
	}
	if e.Decision.Rule != "" {
		b.WriteString(", by rule " + e.Decision.Rule)
	}
	b.WriteByte('\n')
	return b.String()
}
