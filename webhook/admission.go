package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
)

// admission lets requests through to decisions: as many at once as the process
// can bear, and only from callers that it knows. All others are denied.
type admission struct {
	gate    *authz.Gate
	callers *callers
	// connections over the limit are refused.
	connections *connections
	clock       func() time.Time
	max         int64
	log         func(authz.Request, authz.Decision)

	// busy is how many requests are being answered.
	busy atomic.Int64
}

var errTooMany = errors.New("more requests or connections at once than --max-concurrent and --max-connections allow")

// proof is what a caller shows of who it is: secrets, how TLS was agreed on
// (nil without it), and where it is.
type proof struct {
	secrets []string
	state   *tls.ConnectionState
	from    string
}

// admit is asked once a request, before anything else; release follows if it
// does not refuse. over says that the connection is one too many; what the
// caller shows is looked for where a proof is asked for.
func (a *admission) admit(over bool, shows func() proof) *authz.Decision {
	if a.busy.Add(1) > a.max || over {
		return a.refuse(authz.ReasonOverloaded, errTooMany)
	}
	if !a.callers.asked() {
		return nil
	}
	if shown := shows(); !a.callers.known(shown.secrets, shown.state, a.clock()) {
		return a.refuse(authz.ReasonCallerUnknown, fmt.Errorf("caller at %s proves neither by %s nor by a certificate who it is", shown.from, callerHeader))
	}
	return nil
}

func (a *admission) refuse(reason string, err error) *authz.Decision {
	a.busy.Add(-1)
	d := a.gate.Refuse(reason, err)
	return &d
}

func (a *admission) release() { a.busy.Add(-1) }

// http guards a handler of decisions. What goes wrong in it is a denial too.
func (a *admission) http(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if fault := recover(); fault != nil {
				d := a.gate.Fault(fault)
				clear(w.Header()) // an answer that was begun
				httpauth.Respond(w, &d)
			}
		}()
		c := a.connOf(r)
		refused := a.admit(c.overLimit(), func() proof { return proof{r.Header[callerHeader], c.tlsState(), r.RemoteAddr} })
		if refused != nil {
			if refused.Reason == authz.ReasonCallerUnknown {
				w.Header().Set("Connection", "close") // others need it
			}
			httpauth.Respond(w, refused)
			a.log(authz.Request{}, *refused)
			return
		}
		defer a.release()
		// Policies see headers, and pass them on where they say so.
		delete(r.Header, callerHeader)
		next.ServeHTTP(w, r)
	})
}

// connOf gives the connection of a request where it has a say; most requests
// are spared looking for it.
func (a *admission) connOf(r *http.Request) *conn {
	if !a.callers.asked() && !a.connections.crowded() {
		return nil
	}
	return connOf(r.Context())
}

// grpc is grpcauth's Admit.
func (a *admission) grpc(ctx context.Context) *authz.Decision {
	return a.admit(false, func() (shown proof) {
		shown.secrets = metadata.ValueFromIncomingContext(ctx, callerHeader)
		if p, ok := peer.FromContext(ctx); ok {
			shown.from = p.Addr.String()
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
				shown.state = &info.State
			}
		}
		return shown
	})
}
