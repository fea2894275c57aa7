package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

// inFlight is how many requests are open at once.
const inFlight = 64

// patience is how long a server may be silent.
const patience = 10 * time.Second

// sample is what one load saw. CPU times are in seconds.
type sample struct {
	Requests  int
	Seconds   float64
	ServerCPU float64
}

func (s sample) rate() float64        { return float64(s.Requests) / s.Seconds }
func (s sample) perRequest() float64  { return s.ServerCPU / float64(s.Requests) * 1e6 }
func (s sample) serverShare() float64 { return s.ServerCPU / s.Seconds }

// talk is how a load speaks on one connection.
type talk interface {
	// open begins a new connection, and appends what is sent before requests.
	open(out []byte) []byte
	// ask appends a request.
	ask(out []byte, token string) ([]byte, error)
	// hear looks at what has arrived: how many bytes were of use, how many
	// answers they complete, and out with what has to be sent back. An answer
	// that does not allow is an error.
	hear(in, out []byte) (used, answers int, back []byte, err error)
}

// runLoad is the process of the load. Clients of the standard library and of
// grpc-go would cost more than the servers do. This one is a single thread that
// writes requests made beforehand and looks only at what it must.
func runLoad(args []string) error {
	f := flag.NewFlagSet(roleLoad, flag.ExitOnError)
	address := f.String("address", "", "")
	pid := f.Int("pid", 0, "")
	how := f.String("talk", "", "")
	policy := f.String("policy", "", "")
	warmUp := f.Int("warm-up", 0, "")
	requests := f.Int("requests", 0, "")
	expect := f.String("expect", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	l := &load{address: *address, once: *how == talkHTTPOnce}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		l.tokens = append(l.tokens, lines.Text())
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading tokens: %w", err)
	}
	if len(l.tokens) == 0 {
		return errors.New("reading tokens: there are none")
	}
	conns, speak := inFlight, func() talk { return newHTTPTalk(*policy, *expect, l.once) }
	if *how == talkGRPC {
		conns, speak = grpcConns, func() talk { return newGRPCTalk(*policy, *expect) }
	}
	defer l.close()
	if err := l.open(conns, speak); err != nil {
		return err
	}
	if err := l.run(*warmUp); err != nil {
		return err
	}
	runtime.GC() // what is left over from reading tokens
	s, err := measure(*pid, func() error { return l.run(*requests) })
	if err != nil {
		return err
	}
	s.Requests = *requests
	return json.NewEncoder(os.Stdout).Encode(s)
}
