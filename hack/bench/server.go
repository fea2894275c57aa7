package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"k8s.io/client-go/rest"

	"github.com/keywright/keywright/webhook"
)

// runServer is the process of a server. It ends with its standard input.
func runServer(role string, args []string) error {
	f := flag.NewFlagSet(role, flag.ExitOnError)
	listen := f.String("listen", "", "")
	grpcListen := f.String("grpc-listen", "", "")
	admin := f.String("admin-listen", "", "")
	api := f.String("api", "", "")
	public := f.String("public", "", "")
	profile := f.String("profile", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	signal.Ignore(os.Interrupt) // a terminal's reaches this process too
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // either way it is over
		stop()
	}()
	switch role {
	case roleFloor:
		return serveBare(ctx, *listen, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { allow(w) }))
	case roleFloorGRPC:
		return serveBareGRPC(ctx, *listen)
	case roleCheck:
		check, err := verifier(*public)
		if err != nil {
			return err
		}
		return serveBare(ctx, *listen, checkSignature(check))
	}
	return profiled(*profile, func() error { return serveGate(ctx, *listen, *grpcListen, *admin, *api) })
}

// serveBare is net/http as it comes.
func serveBare(ctx context.Context, listen string, h http.Handler) error {
	s := &http.Server{Addr: listen, Handler: h}
	go func() {
		<-ctx.Done()
		_ = s.Close() // nobody asks any more
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func allow(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// serveBareGRPC is grpc-go as it comes.
func serveBareGRPC(ctx context.Context, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, always{})
	go func() {
		<-ctx.Done()
		s.Stop() // nobody asks any more
	}()
	return s.Serve(l)
}

// always allows, with one answer for all.
type always struct {
	authv3.UnimplementedAuthorizationServer
}

var allowed = &authv3.CheckResponse{
	Status:       &status.Status{},
	HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
}

func (always) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return allowed, nil
}

// publicText is a public key as an argument, and verifier reads it.
func publicText(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("writing a public key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}

// verifier gives what the standard library has to check a signature with.
func verifier(public string) (func(input string, signature []byte) bool, error) {
	der, err := base64.StdEncoding.DecodeString(public)
	if err != nil {
		return nil, fmt.Errorf("-public: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("-public: %w", err)
	}
	switch key := parsed.(type) {
	case *ecdsa.PublicKey:
		return func(input string, signature []byte) bool {
			digest := sha256.Sum256([]byte(input))
			return len(signature) == 64 &&
				ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		}, nil
	case ed25519.PublicKey:
		return func(input string, signature []byte) bool { return ed25519.Verify(key, []byte(input), signature) }, nil
	case *rsa.PublicKey:
		return func(input string, signature []byte) bool {
			digest := sha256.Sum256([]byte(input))
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
		}, nil
	}
	return nil, fmt.Errorf("-public: a key of type %T", parsed)
}

// checkSignature does what nobody can leave out: it checks a signature, and
// does not look at what is signed.
func checkSignature(verify func(input string, signature []byte) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		dot := max(0, strings.LastIndexByte(raw, '.'))
		signature, err := base64.RawURLEncoding.DecodeString(raw[min(dot+1, len(raw)):])
		if err != nil || !verify(raw[:dot], signature) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		allow(w)
	})
}

// cacheSize is the default of "keywright webhook", as the limits below are.
const cacheSize = 100_000

// serveGate is what "keywright webhook --insecure-http" does.
func serveGate(ctx context.Context, listen, grpcListen, admin, api string) error {
	o := webhook.Options{
		Listen: listen, GRPCListen: grpcListen, AdminListen: admin, TLSMinVersion: "1.3", InsecureHTTP: true,
		Namespace: "keywright-system", CacheSize: cacheSize, MaxConcurrent: 2048, MaxConnections: 8192,
	}
	if err := o.Validate(); err != nil {
		return err
	}
	return webhook.Run(ctx, &rest.Config{Host: api}, o, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
}

// profiled writes profiles of serve to prefix.cpu.pprof and
// prefix.allocs.pprof, if there is a prefix.
func profiled(prefix string, serve func() error) (err error) {
	if prefix == "" {
		return serve()
	}
	cpu, err := os.Create(prefix + ".cpu.pprof")
	if err != nil {
		return fmt.Errorf("-profile: %w", err)
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	allocs, err := os.Create(prefix + ".allocs.pprof")
	if err != nil {
		return fmt.Errorf("-profile: %w", err)
	}
	defer func() { err = errors.Join(err, allocs.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return fmt.Errorf("-profile: %w", err)
	}
	err = serve()
	pprof.StopCPUProfile()
	return errors.Join(err, pprof.Lookup("allocs").WriteTo(allocs, 0))
}
