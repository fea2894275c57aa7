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

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/grpcauth"
	"github.com/keywright/keywright/webhook/httpauth"
	"github.com/keywright/keywright/webhook/remote"
)

// Limits of the listeners.
const (
	// readTimeout bounds the whole of a request, from its first byte or, on a
	// new connection, from the handshake. One value for header and body is set
	// once.
	readTimeout = 10 * time.Second
	// writeTimeout bounds an answer, which is small: who does not take it
	// holds nothing longer.
	writeTimeout = 10 * time.Second
	// idleTimeout is longer than what proxies keep connections for, so that
	// it is they who close them.
	idleTimeout = 15 * time.Minute
	// maxHeaderBytes is more than proxies let through (nginx: 4 buffers of
	// 8 KiB), so that what a client sent is answered with a decision.
	maxHeaderBytes = 128 << 10
	// maxMessageBytes is more than Envoy lets through in headers (60 KiB when
	// nothing else is set). A larger message is an error, not a denial: grpc-go
	// leaves no choice.
	maxMessageBytes = 1 << 20
	// keepaliveEvery is how often a silent gRPC connection is tried, and how
	// often at most a client may try it.
	keepaliveEvery    = time.Minute
	minKeepaliveEvery = 10 * time.Second
	// maxConnectionAge is when a gRPC connection is ended between two
	// requests: Envoy opens another, maybe to a gate that has come since.
	maxConnectionAge = 30 * time.Minute
	// streamWorkers is how many goroutines answer one gRPC request after the
	// other: a new one for each grows its stack each time, which costs a tenth
	// of an answer. When all are busy, there are more. So many wait in 2 MiB,
	// and are enough for the requests that one connection brings at once.
	streamWorkers = 128
	// keysetsIdleTimeout is longer than the controller keeps connections for.
	keysetsIdleTimeout = 2 * time.Minute
	// firstFetch is how long readiness waits for keys of other issuers: longer
	// than two documents may take.
	firstFetch = 15 * time.Second
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
	if o.servesGRPC() {
		if at.grpc, err = net.Listen("tcp", o.GRPCListen); err != nil {
			return fmt.Errorf("--grpc-listen: %w", err)
		}
		defer func() { _ = at.grpc.Close() }()
	}
	if o.servesKeysets() {
		if at.keysets, err = net.Listen("tcp", o.KeysetsListen); err != nil {
			return fmt.Errorf("--keysets-listen: %w", err)
		}
		defer func() { _ = at.keysets.Close() }()
	}

	defer keepHeap()()

	// What is behind the answers goes on until the last one is given.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	clock := time.Now //nolint:forbidigo // the clock of this process, handed to all that needs one
	api := &contact{clock: clock}
	config = rest.CopyConfig(config)
	config.Wrap(api.wrap)
	callers, err := newCallers(o.CallerSecretFile, o.CallerCAFile, log)
	if err != nil {
		return err
	}
	if err := (&fetch.Client{CAFile: o.FetchCAFile}).Check(); err != nil {
		return fmt.Errorf("--fetch-ca-file: %w", err)
	}
	g := newServer(log, api, callers, o, clock)
	defer g.gate.Close()
	if callers.asked() {
		go callers.follow(background)
	}
	all, err := g.feed.followers(config, &o, g.pin)
	if err != nil {
		return err
	}
	go all.run(background)
	go g.fetcher.Run(background)
	return g.serve(ctx, at)
}

// listeners of the process; grpc and keysets are nil when there is none.
type listeners struct{ auth, grpc, admin, keysets net.Listener }

// server is the process without its followers.
type server struct {
	options     Options
	log         *slog.Logger
	clock       func() time.Time
	contact     *contact
	store       *authz.Store
	gate        *authz.Gate
	feed        *feed
	fetcher     *remote.Fetcher
	admission   *admission
	connections *connections
	auth        http.Handler
	grpc        *grpcauth.Server
	admin       http.Handler
	keysets     http.Handler
	pin         *pin
	denied      func(authz.Request, authz.Decision)
	synced      atomic.Bool // latched: it is asked once a decision
	asked       atomic.Bool // latched, see hasAsked
	syncedAt    atomic.Int64
	draining    atomic.Bool
	drain       time.Duration // drainTimeout
}

func newServer(log *slog.Logger, api *contact, callers *callers, o Options, clock func() time.Time) *server {
	store := authz.NewStore()
	s := &server{
		options: o,
		drain:   drainTimeout,
		log:     log,
		clock:   clock,
		contact: api,
		store:   store,
		feed:    newFeed(store, log, clock),
		fetcher: &remote.Fetcher{Store: store, Client: &fetch.Client{AllowPrivate: o.AllowPrivateURLs, CAFile: o.FetchCAFile}, Clock: clock, Log: log},
		denied:  newDecisionLog(log, o.LogAllowedSample).decided,
	}
	s.gate = authz.NewGate(store, authz.Options{
		CacheSize: o.CacheSize,
		Clock:     clock,
		Doubt:     s.doubt,
		OnPanic: func(fault any, stack []byte) {
			// The fault's text could hold what a client sent.
			log.Error("fault while deciding: denied", "type", fmt.Sprintf("%T", fault), "stack", string(stack))
		},
	})
	s.connections = newConnections(o.MaxConnections)
	s.admission = &admission{gate: s.gate, callers: callers, connections: s.connections, clock: clock, max: int64(o.MaxConcurrent), log: s.denied}
	s.pin = &pin{log: log, clock: clock}
	s.keysets = s.goodbye(&keysets{store: store, synced: s.feed.hasSynced, pin: s.pin})
	duration := newDuration()
	took := func(d time.Duration) { duration.Observe(d.Seconds()) }
	logAllowed := o.LogAllowedSample > 0 || log.Enabled(context.Background(), slog.LevelDebug)
	s.grpc = &grpcauth.Server{
		Gate: s.gate, Admit: s.admission.grpc, Release: s.admission.release, Fault: s.gate.Fault,
		Clock: clock, Took: took, Log: s.denied, LogAllowed: logAllowed,
	}
	s.auth = s.authHandler(
		s.admission.http(&httpauth.Handler{Gate: s.gate, Clock: clock, Took: took, Log: s.denied, LogAllowed: logAllowed}),
		&published{store: store, clock: clock, synced: s.feed.hasSynced, url: strings.TrimRight(o.PublicURL, "/"), hosts: o.issuerHosts()},
	)
	registry := newRegistry(duration, &metrics{
		store: store, gate: s.gate, feed: s.feed, contact: api, clock: clock,
		admission: s.admission, connections: s.connections,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s.admin = mux
	return s
}

// doubt gives the reason why nothing can be decided at now: there is less here
// than there is in the cluster, or it may be out of date.
func (s *server) doubt(now time.Time) string {
	if !s.synced.Load() {
		if !s.feed.hasSynced() {
			return authz.ReasonNotSynced
		}
		s.synced.Store(true)
	}
	if s.stale(now) {
		return authz.ReasonStale
	}
	return ""
}

// stale says whether the API server has been silent for longer than allowed.
func (s *server) stale(now time.Time) bool {
	if s.options.MaxStaleness == 0 {
		return false
	}
	last := s.contact.last.Load()
	return last == 0 || now.Sub(time.Unix(0, last)) > s.options.MaxStaleness
}

// hasAsked says whether other issuers have been asked for their keys once, so
// that a new gate refuses none of their tokens. Who does not answer is not
// waited for longer than firstFetch after the rest was there.
func (s *server) hasAsked() bool {
	if s.asked.Load() {
		return true
	}
	now := s.clock()
	s.syncedAt.CompareAndSwap(0, now.UnixNano())
	if !s.fetcher.Asked() && now.Sub(time.Unix(0, s.syncedAt.Load())) < firstFetch {
		return false
	}
	s.asked.Store(true)
	return true
}

// authHandler looks at the raw target: a mux would clean it and redirect.
func (s *server) authHandler(decisions, keys http.Handler) http.Handler {
	return s.goodbye(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		decides := strings.HasPrefix(r.RequestURI, httpauth.Prefix)
		if s.admission.connOf(r).overLimit() || !decides && s.admission.callers.asked() {
			// Strangers may fetch keys, and hold none of the connections that
			// callers need.
			w.Header().Set("Connection", "close")
		}
		switch {
		case decides:
			decisions.ServeHTTP(w, r)
		default:
			r.TLS = connOf(r.Context()).tlsState()
			keys.ServeHTTP(w, r)
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
	case !s.hasAsked():
		answer(w, http.StatusServiceUnavailable, "keys of other issuers are not fetched yet")
	case s.stale(s.clock()):
		answer(w, http.StatusServiceUnavailable, "API server not heard for too long")
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
	ended := make(chan error, 5)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	var config *tls.Config
	if !s.options.InsecureHTTP {
		watcher, err := certwatcher.New(s.options.TLSCertFile, s.options.TLSKeyFile)
		if err != nil {
			return fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		go func() {
			if err := watcher.Start(background); err != nil {
				ended <- fmt.Errorf("following the certificate: %w", err)
			}
		}()
		if config, err = s.tlsConfig(watcher.GetCertificate); err != nil {
			return err
		}
	}
	go s.connections.watch(background)
	authServer := s.authServer()
	adminServer := s.httpServer(s.admin)
	servers := []*http.Server{authServer, adminServer}
	go func() {
		ended <- authServer.Serve(&counted{Listener: at.auth, all: s.connections, unheard: 2, tls: config, unread: s.unread})
	}()
	go func() { ended <- adminServer.Serve(at.admin) }()
	var grpcServer *grpc.Server
	log := s.log.With("address", at.auth.Addr().String(), "tls", !s.options.InsecureHTTP, "admin", at.admin.Addr().String())
	if at.keysets != nil {
		keysetsServer := s.keysetsServer()
		servers = append(servers, keysetsServer)
		go func() { ended <- keysetsServer.ServeTLS(at.keysets, "", "") }()
		log = log.With("keysets", at.keysets.Addr().String())
	}
	if at.grpc != nil {
		grpcServer = s.grpcServer(config)
		go func() { ended <- grpcServer.Serve(&counted{Listener: at.grpc, all: s.connections, unheard: 1}) }()
		log = log.With("grpc", at.grpc.Addr().String())
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
	if grpcServer != nil {
		drained.Go(func() { stopGRPC(limited, grpcServer) })
	}
	drained.Wait()
	return cause
}

// stopGRPC tells clients to go elsewhere and waits for what is open, as long
// as ctx lasts.
func stopGRPC(ctx context.Context, server *grpc.Server) {
	done := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		server.Stop()
		<-done
	}
}

// tlsConfig of the listeners for callers. A client's certificate is asked for
// and not yet looked at: who has none may still fetch keys.
func (s *server) tlsConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*tls.Config, error) {
	minVersion, err := s.options.tlsMinVersion()
	if err != nil {
		return nil, fmt.Errorf("--tls-min-version: %w", err)
	}
	config := &tls.Config{MinVersion: minVersion, GetCertificate: certificate, NextProtos: []string{"http/1.1"}} //nolint:gosec // 1.2 at least
	if s.options.CallerCAFile != "" {
		config.ClientAuth = tls.RequestClientCert
	}
	return config, nil
}

// authServer speaks HTTP/1.1 over connections that have spoken TLS before, if
// they do. Over HTTP/2 what net/http cannot read would be an error, and one
// request's error the end of all others on its connection.
func (s *server) authServer() *http.Server {
	server := s.httpServer(s.auth)
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.ConnContext = withConn
	return server
}

// grpcServer serves Envoy; config is nil without TLS.
func (s *server) grpcServer(config *tls.Config) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(grpcauth.Codec()),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(uint32(s.options.MaxConcurrent)), //nolint:gosec // validated
		grpc.ConnectionTimeout(readTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: drainTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minKeepaliveEvery, PermitWithoutStream: true}),
	}
	if config != nil {
		config = config.Clone()
		config.NextProtos = nil // gRPC names its own
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(server, s.grpc)
	return server
}

// unread counts and logs a request that could not be read.
func (s *server) unread(from string) {
	s.denied(authz.Request{}, s.gate.Refuse(authz.ReasonUnreadableRequest, fmt.Errorf("caller at %s sent what is no request, or one with too large a header", from)))
}

func (s *server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h,
		// OPTIONS * is a request like others.
		DisableGeneralOptionsHandler: true,
		ReadTimeout:                  readTimeout,
		ReadHeaderTimeout:            readTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
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
