package webhook

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
	"github.com/keywright/keywright/webhook/remote"
)

// Limits of the listeners.
const (
	// readTimeout bounds the whole of a request, from its first byte or, on a
	// new connection, from the handshake. One value for header and body costs
	// one timer less.
	readTimeout = 10 * time.Second
	// idleTimeout is longer than what proxies keep connections for, so that
	// it is they who close them.
	idleTimeout = 15 * time.Minute
	// maxHeaderBytes is more than proxies let through (nginx: 4 buffers of
	// 8 KiB), so that what a client sent is answered with a decision.
	maxHeaderBytes = 128 << 10
	// keysetsIdleTimeout is longer than the controller keeps connections for.
	keysetsIdleTimeout = 2 * time.Minute
	// drainTimeout bounds how long open requests may take at the end.
	drainTimeout = 10 * time.Second
)

// Run is the process: it returns nil after a drain that began when ctx ended,
// or the first error. The caller has validated o.
func Run(ctx context.Context, config *rest.Config, o Options, log *slog.Logger) error {
	auth, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer func() { _ = auth.Close() }()
	admin, err := net.Listen("tcp", o.AdminListen)
	if err != nil {
		return fmt.Errorf("--admin-listen: %w", err)
	}
	defer func() { _ = admin.Close() }()
	at := listeners{auth: auth, admin: admin}
	if o.servesKeysets() {
		if at.keysets, err = net.Listen("tcp", o.KeysetsListen); err != nil {
			return fmt.Errorf("--keysets-listen: %w", err)
		}
		defer func() { _ = at.keysets.Close() }()
	}

	// What is behind the answers goes on until the last one is given.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	clock := time.Now //nolint:forbidigo // the clock of this process, handed to all that needs one
	api := &contact{clock: clock}
	config = rest.CopyConfig(config)
	config.Wrap(api.wrap)
	g := newServer(log, api, o, clock)
	defer g.gate.Close()
	all, err := g.feed.followers(config, &o, g.pin)
	if err != nil {
		return err
	}
	go all.run(background)
	fetcher := &remote.Fetcher{Store: g.store, Client: &fetch.Client{AllowPrivate: o.AllowPrivateURLs}, Clock: clock, Log: log}
	go fetcher.Run(background)
	return g.serve(ctx, at)
}

// listeners of the process; keysets is nil when there is none.
type listeners struct{ auth, admin, keysets net.Listener }

// server is the process without its followers.
type server struct {
	options  Options
	log      *slog.Logger
	store    *authz.Store
	gate     *authz.Gate
	feed     *feed
	auth     http.Handler
	admin    http.Handler
	keysets  http.Handler
	pin      *pin
	draining atomic.Bool
	drain    time.Duration // drainTimeout
}

func newServer(log *slog.Logger, api *contact, o Options, clock func() time.Time) *server {
	store := authz.NewStore()
	s := &server{
		options: o,
		drain:   drainTimeout,
		log:     log,
		store:   store,
		feed:    newFeed(store, log, clock),
		gate: authz.NewGate(store, authz.Options{
			CacheSize: o.CacheSize,
			Clock:     clock,
			OnPanic: func(fault any, stack []byte) {
				// The fault's text could hold what a client sent.
				log.Error("fault while deciding: denied", "type", fmt.Sprintf("%T", fault), "stack", string(stack))
			},
		}),
	}
	s.pin = &pin{log: log, clock: clock}
	s.keysets = s.goodbye(&keysets{store: store, synced: s.feed.hasSynced, pin: s.pin})
	duration := newDuration()
	s.auth = s.authHandler(
		&httpauth.Handler{
			Gate:       s.gate,
			Clock:      clock,
			Took:       func(d time.Duration) { duration.Observe(d.Seconds()) },
			Log:        newDecisionLog(log, o.LogAllowedSample).decided,
			LogAllowed: o.LogAllowedSample > 0 || log.Enabled(context.Background(), slog.LevelDebug),
		},
		&published{store: store, clock: clock, synced: s.feed.hasSynced, url: strings.TrimRight(o.PublicURL, "/")},
	)
	registry := newRegistry(duration, &metrics{store: store, gate: s.gate, feed: s.feed, contact: api, clock: clock})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s.admin = mux
	return s
}

// authHandler looks at the raw target: a mux would clean it and redirect.
func (s *server) authHandler(decisions, keys http.Handler) http.Handler {
	return s.goodbye(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.RequestURI, httpauth.Prefix):
			decisions.ServeHTTP(w, r)
		case strings.HasPrefix(r.RequestURI, keysPrefix):
			keys.ServeHTTP(w, r)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
}

// goodbye closes connections after their next answer while the process drains:
// what follows goes elsewhere.
func (s *server) goodbye(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.draining.Load():
		answer(w, http.StatusServiceUnavailable, "shutting down")
	case !s.feed.hasSynced():
		answer(w, http.StatusServiceUnavailable, "not synced yet")
	default:
		answer(w, http.StatusOK, "ok")
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // whoever asked is gone
}

// serve answers on the listeners until ctx ends or one of them fails; then it
// drains.
func (s *server) serve(ctx context.Context, at listeners) error {
	ended := make(chan error, 4)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	authServer := s.httpServer(s.auth)
	adminServer := s.httpServer(s.admin)
	servers := []*http.Server{authServer, adminServer}
	if s.options.InsecureHTTP {
		authServer.Protocols = new(http.Protocols)
		authServer.Protocols.SetHTTP1(true)
		authServer.Protocols.SetUnencryptedHTTP2(true)
		go func() { ended <- authServer.Serve(at.auth) }()
	} else {
		watcher, err := certwatcher.New(s.options.TLSCertFile, s.options.TLSKeyFile)
		if err != nil {
			return fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		go func() {
			if err := watcher.Start(background); err != nil {
				ended <- fmt.Errorf("following the certificate: %w", err)
			}
		}()
		minVersion, err := s.options.tlsMinVersion()
		if err != nil {
			return fmt.Errorf("--tls-min-version: %w", err)
		}
		authServer.TLSConfig = &tls.Config{MinVersion: minVersion, GetCertificate: watcher.GetCertificate} //nolint:gosec // 1.2 at least
		go func() { ended <- authServer.ServeTLS(at.auth, "", "") }()
	}
	go func() { ended <- adminServer.Serve(at.admin) }()
	log := s.log.With("address", at.auth.Addr().String(), "tls", !s.options.InsecureHTTP, "admin", at.admin.Addr().String())
	if at.keysets != nil {
		keysetsServer := s.keysetsServer()
		servers = append(servers, keysetsServer)
		go func() { ended <- keysetsServer.ServeTLS(at.keysets, "", "") }()
		log = log.With("keysets", at.keysets.Addr().String())
	}
	log.Info("listening")

	var cause error
	select {
	case <-ctx.Done():
	case cause = <-ended:
	}
	s.draining.Store(true)
	s.log.Info("draining", "delay", s.options.ShutdownDelay.String())
	if cause == nil {
		delay := time.NewTimer(s.options.ShutdownDelay)
		select {
		case <-delay.C:
		case cause = <-ended:
		}
		delay.Stop()
	}
	limited, cancel := context.WithTimeout(background, s.drain)
	defer cancel()
	var drained sync.WaitGroup
	for _, server := range servers {
		drained.Go(func() {
			// A client that is slow is no failure of this process.
			if err := server.Shutdown(limited); err != nil {
				s.log.Info("closing connections that are still in use", "error", err.Error())
				_ = server.Close() // nothing is left to be done about it
			}
		})
	}
	drained.Wait()
	return cause
}

func (s *server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// keysetsServer is for the controller alone, which asks little and at once.
func (s *server) keysetsServer() *http.Server {
	server := s.httpServer(s.keysets)
	server.TLSConfig = s.pin.config()
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.WriteTimeout = readTimeout
	server.IdleTimeout = keysetsIdleTimeout
	server.MaxHeaderBytes = 8 << 10
	return server
}
