package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/keywright/keywright/webhook"
)

// runServer is the process of a server. It ends with its standard input.
func runServer(role string, args []string) error {
	f := flag.NewFlagSet(role, flag.ExitOnError)
	listen := f.String("listen", "", "")
	admin := f.String("admin-listen", "", "")
	api := f.String("api", "", "")
	profile := f.String("profile", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	key, err := keyOfEnvironment()
	if err != nil {
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
	case roleCheck:
		return serveBare(ctx, *listen, checkSignature(&key.PublicKey))
	}
	return profiled(*profile, func() error { return serveGate(ctx, *listen, *admin, *api) })
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

// checkSignature does with the standard library what nobody can leave out: it
// checks an ES256 signature, and does not look at what is signed. Requests
// without a token, which ask whether it is ready, pass.
func checkSignature(public *ecdsa.PublicKey) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, asked := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		dot := strings.LastIndexByte(raw, '.')
		if dot > 0 {
			signature, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
			digest := sha256.Sum256([]byte(raw[:dot]))
			asked = err != nil || len(signature) != 64 ||
				!ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		}
		if asked {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		allow(w)
	})
}

// cacheSize is the default of "keywright webhook", as the limits below are.
const cacheSize = 100_000

// serveGate is what "keywright webhook --insecure-http" does.
func serveGate(ctx context.Context, listen, admin, api string) error {
	o := webhook.Options{
		Listen: listen, AdminListen: admin, TLSMinVersion: "1.3", InsecureHTTP: true,
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

// awaitReady asks until url answers 200.
func awaitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", url, err)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", url, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
