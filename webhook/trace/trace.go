// Package trace records how a decision came about, step by step, while it is
// made: nothing decides a second time in order to explain.
//
// A nil Trace records nothing and costs a comparison. What is recorded is for
// people who may read logs: key IDs, names of rules and claims, times; never a
// token, a claim's value or a query. Who puts texts together for it does so
// only where On says that somebody listens.
package trace

// Step is one thing that was looked at.
type Step struct {
	// What was looked at, such as "rule", "signature" or "exp".
	What string
	// Name of it where there are several, such as the rule's.
	Name string
	// OK says that it was as it should be. A step that was not is why a token
	// or a request is refused, or why a rule is not the one that decides.
	OK bool
	// Detail for people; may be empty.
	Detail string
}

// Trace is the steps so far. It is for one decision, and not for several
// goroutines.
type Trace struct{ steps []Step }

// On says whether steps are recorded.
func (t *Trace) On() bool { return t != nil }

// Yes records a step that was as it should be. It and its siblings are short
// enough to be inlined, so that a decision without a Trace pays for no call.
func (t *Trace) Yes(what, name, detail string) {
	if t != nil {
		t.add(what, name, detail, true)
	}
}

// No records a step that was not.
func (t *Trace) No(what, name, detail string) {
	if t != nil {
		t.add(what, name, detail, false)
	}
}

// Fault is No with what an error says, and gives the error back.
func (t *Trace) Fault(what, name string, err error) error {
	if t != nil {
		t.add(what, name, err.Error(), false)
	}
	return err
}

//go:noinline
func (t *Trace) add(what, name, detail string, ok bool) {
	t.steps = append(t.steps, Step{What: what, Name: name, OK: ok, Detail: detail})
}

// Steps are those recorded, in their order.
func (t *Trace) Steps() []Step {
	if t == nil {
		return nil
	}
	return t.steps
}
