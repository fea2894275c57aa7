package webhook

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/token"
)

// decisionLog writes a line for each denial, as long as its policy has not
// too many, for a sample of what is allowed, and for the rest of it at debug
// level. It never writes tokens, claims or queries; what else a client sent is
// quoted and cut.
type decisionLog struct {
	log *slog.Logger
	// sample is which part of what is allowed is written, from 0 to 1.
	sample float64

	mu sync.Mutex
	// denials are those of each policy that there is, so that a flood at one
	// hides none of another; those of all others are under the zero Ref.
	denials map[authz.Ref]*denials
}

// denials of one policy.
type denials struct {
	limiter *rate.Limiter
	left    atomic.Uint64
}

// Denials of a policy that are logged: so many a second in the long run, so
// many at once.
const (
	denialsPerSecond = 20
	denialsAtOnce    = 200
)

// maxLimited is of how many policies that is known. Beyond it, it begins anew.
const maxLimited = 10_000

// maxNotReady is how much of what is wrong with a policy is in a denial's line,
// in bytes: its first fault, mostly.
const maxNotReady = 200

func newDecisionLog(log *slog.Logger, sample float64) *decisionLog {
	return &decisionLog{log: log, sample: sample, denials: map[authz.Ref]*denials{}}
}

func (l *decisionLog) denialsOf(req *authz.Request, d *authz.Decision) *denials {
	ref := req.Policy
	switch {
	case d.Reason == authz.ReasonPolicyNotFound, d.Reason == authz.ReasonNotSynced, d.Reason == authz.ReasonStale:
		ref = authz.Ref{} // the name is the client's
	case ref == authz.Ref{}: // none was looked for
		ref.Name = d.Reason
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	of, ok := l.denials[ref]
	if !ok {
		if len(l.denials) == maxLimited {
			clear(l.denials) // most are of policies that are gone
		}
		of = &denials{limiter: rate.NewLimiter(denialsPerSecond, denialsAtOnce)}
		l.denials[ref] = of
	}
	return of
}

func (l *decisionLog) decided(req authz.Request, d authz.Decision) {
	level, message := slog.LevelInfo, "request denied"
	if d.Allowed {
		message = "request allowed"
		if l.sample < 1 && rand.Float64() >= l.sample {
			level = slog.LevelDebug
		}
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if !d.Allowed {
		of := l.denialsOf(&req, &d)
		if !of.limiter.Allow() {
			of.left.Add(1)
			return
		}
		if left := of.left.Swap(0); left > 0 {
			attrs = append(attrs, slog.Uint64("notLogged", left))
		}
	}
	if (req.Policy != authz.Ref{}) {
		attrs = append(attrs, slog.String("policy", req.Policy.String()))
	}
	attrs = append(attrs, slog.Int("status", d.Status))
	for _, a := range []struct{ name, value string }{{"rule", d.Rule}, {"reason", d.Reason}, {"kid", d.KeyID}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if req.HasMethod {
		attrs = append(attrs, slog.String("method", token.Quote(req.Method)))
	}
	if req.HasTarget {
		path := req.Target
		if end := strings.IndexAny(path, "?#"); end >= 0 { // what follows may hold a token
			path = path[:end]
		}
		attrs = append(attrs, slog.String("path", token.Quote(path)))
	}
	switch {
	case d.Reason == authz.ReasonPolicyNotReady && d.Err != nil: // the rest is in its status, or soon will be
		attrs = append(attrs, slog.String("error", "policy is not ready: "+cut(d.Err.Error(), maxNotReady)))
	case d.Err != nil:
		attrs = append(attrs, slog.String("error", d.Err.Error()))
	}
	l.log.LogAttrs(context.Background(), level, message, attrs...)
}
