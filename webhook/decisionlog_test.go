package webhook

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/keywright/keywright/webhook/authz"
)

func TestDecisionLogOfAllowedRequests(t *testing.T) {
	const asked = 4000
	for name, tc := range map[string]struct {
		level       slog.Level
		sample      float64
		least, most int
	}{
		"none by default":     {},
		"all":                 {sample: 1, least: asked, most: asked},
		"a part":              {sample: 0.5, least: asked / 4, most: asked * 3 / 4},
		"all at debug level":  {level: slog.LevelDebug, least: asked, most: asked},
		"the rest with debug": {level: slog.LevelDebug, sample: 0.5, least: asked, most: asked},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := newDecisionLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tc.level})), tc.sample)
			for range asked {
				l.decided(
					authz.Request{Policy: authz.Ref{Namespace: "shop", Name: "orders"}, HasTarget: true, Target: "/a?access_token=secret#secret"},
					authz.Decision{Allowed: true, Status: 200, Rule: "read", KeyID: "k1"},
				)
			}
			n := strings.Count(out.String(), `msg="request allowed" policy=shop/orders status=200 rule=read kid=k1 path="\"/a\""`)
			if n < tc.least || n > tc.most {
				t.Errorf("%d of %d are logged, want %d to %d:\n%.300s", n, asked, tc.least, tc.most, out.String())
			}
			if strings.Contains(out.String(), "secret") {
				t.Error("a query is logged")
			}
		})
	}
}
