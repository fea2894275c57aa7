package httpauth_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
)

func TestRespondTellsWhatThePolicyAsksFor(t *testing.T) {
	for name, tc := range map[string]struct {
		d    authz.Decision
		want map[string][]string
	}{
		"an answer that may be kept": {
			authz.Decision{Allowed: true, Status: 200, CacheFor: 90 * time.Second, Vary: "Authorization, Cookie"},
			map[string][]string{"Cache-Control": {"max-age=90"}, "Vary": {"Authorization, Cookie"}},
		},
		"an answer that may not": {
			authz.Decision{Allowed: true, Status: 200}, map[string][]string{"Cache-Control": {"no-store"}},
		},
		"a denial is never kept": {
			authz.Decision{Status: 403, CacheFor: time.Minute, Vary: "Authorization"}, map[string][]string{"Cache-Control": {"no-store"}},
		},
		"a reason that is shown": {
			authz.Decision{Status: 403, Reason: "no_rule", ShowReason: true},
			map[string][]string{"Cache-Control": {"no-store"}, "X-Keywright-Reason": {"no_rule"}},
		},
		"a reason that is not": {
			authz.Decision{Status: 403, Reason: "no_rule"}, map[string][]string{"Cache-Control": {"no-store"}},
		},
		"no reason for what is allowed": {
			authz.Decision{Allowed: true, Status: 200, ShowReason: true}, map[string][]string{"Cache-Control": {"no-store"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			httpauth.Respond(w, &tc.d)
			if diff := cmp.Diff(tc.want, map[string][]string(w.Header())); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}
