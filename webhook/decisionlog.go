package webhook

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/keywright/keywright/webhook/authz"
)

// decisionLog writes a line for each denial, as long as there are not too
// many, and for each other decision at debug level. It never writes tokens,
// claims or queries; what else a client sent is quoted and cut.
type decisionLog struct {
	log     *slog.Logger
	denials *rate.Limiter
	left    atomic.Uint64
}

// Denials that are logged: so many a second in the long run, so many at once.
const (
	denialsPerSecond = 20
	denialsAtOnce    = 200
)

func newDecisionLog(log *slog.Logger) *decisionLog {
	return &decisionLog{log: log, denials: rate.NewLimiter(denialsPerSecond, denialsAtOnce)}
}

func (l *decisionLog) decided(req authz.Request, d authz.Decision) {
	level, message := slog.LevelInfo, "request denied"
	if d.Allowed {
		level, message = slog.LevelDebug, "request allowed"
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if !d.Allowed {
		if !l.denials.Allow() {
			l.left.Add(1)
			return
		}
		if left := l.left.Swap(0); left > 0 {
			attrs = append(attrs, slog.Uint64("notLogged", left))
		}
	}
	attrs = append(attrs, slog.String("policy", req.Policy.String()), slog.Int("status", d.Status))
	for _, a := range []struct{ name, value string }{{"rule", d.Rule}, {"reason", d.Reason}, {"kid", d.KeyID}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if req.HasMethod {
		attrs = append(attrs, slog.String("method", authz.Quote(req.Method)))
	}
	if req.HasTarget {
		path, _, _ := strings.Cut(req.Target, "?")
		attrs = append(attrs, slog.String("path", authz.Quote(path)))
	}
	switch {
	case d.Reason == authz.ReasonPolicyNotReady:
		attrs = append(attrs, slog.String("error", "policy is not ready: its status says why"))
	case d.Err != nil:
		attrs = append(attrs, slog.String("error", d.Err.Error()))
	}
	l.log.LogAttrs(context.Background(), level, message, attrs...)
}
