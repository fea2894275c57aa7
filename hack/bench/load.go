package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	connections = 64
	// loadTimeout bounds one load, with the making of its tokens.
	loadTimeout = 5 * time.Minute
)

// sample is what one load saw. CPU times are in seconds.
type sample struct {
	Requests           int
	Seconds            float64
	ServerCPU, LoadCPU float64
}

func (s sample) rate() float64        { return float64(s.Requests) / s.Seconds }
func (s sample) perRequest() float64  { return s.ServerCPU / float64(s.Requests) * 1e6 }
func (s sample) serverShare() float64 { return s.ServerCPU / s.Seconds }

// runLoad is the process of the load. It asks a fixed number of times, so that
// tokens that are to be new never come twice. Go's own HTTP client would cost
// more than the servers do; this one writes a request and looks for the end of
// an answer that has no body.
func runLoad(args []string) error {
	f := flag.NewFlagSet(roleLoad, flag.ExitOnError)
	address := f.String("address", "", "")
	pid := f.Int("pid", 0, "")
	requests := f.Int("requests", 0, "")
	fresh := f.Bool("fresh", false, "")
	expect := f.String("expect", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	warmUp := max(20*connections, *requests/10)
	n := connections
	if *fresh {
		n = warmUp + *requests
	}
	tokens, err := makeTokens(n)
	if err != nil {
		return err
	}
	l := &load{tokens: tokens, expect: []byte(*expect)}
	for i := range l.conns {
		if l.conns[i], err = net.Dial("tcp", *address); err != nil {
			return err
		}
		defer l.conns[i].Close() //nolint:errcheck // nothing is lost
		if err := l.conns[i].SetDeadline(time.Now().Add(loadTimeout)); err != nil {
			return err
		}
	}
	if err := l.ask(warmUp); err != nil {
		return err
	}
	runtime.GC() // what is left over from making tokens

	before, err := cpuOf(*pid)
	if err != nil {
		return err
	}
	own, began := ownCPU(), time.Now()
	if err := l.ask(*requests); err != nil {
		return err
	}
	s := sample{Requests: *requests, Seconds: time.Since(began).Seconds(), LoadCPU: ownCPU() - own}
	after, err := cpuOf(*pid)
	if err != nil {
		return err
	}
	s.ServerCPU = after - before
	return json.NewEncoder(os.Stdout).Encode(s)
}

func makeTokens(n int) ([]string, error) {
	key, err := keyOfEnvironment()
	if err != nil {
		return nil, err
	}
	run, now := rand.Text(), time.Now()
	tokens := make([]string, n)
	for i := range tokens {
		if tokens[i], err = sign(key, now, run+strconv.Itoa(i)); err != nil {
			return nil, fmt.Errorf("making tokens: %w", err)
		}
	}
	return tokens, nil
}

// load is the client's side.
type load struct {
	conns  [connections]net.Conn
	tokens []string
	next   int // of tokens
	expect []byte

	mu   sync.Mutex
	left int
}

// take gives the token of the next request; ok is false when there is none.
func (l *load) take() (token string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == 0 {
		return "", false
	}
	l.left--
	token = l.tokens[l.next%len(l.tokens)]
	l.next++
	return token, true
}

// ask makes n requests on all connections.
func (l *load) ask(n int) error {
	l.left = n
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i, conn := range l.conns {
		wg.Go(func() { errs[i] = l.askOn(conn) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// The subrequest as ingress-nginx sends it with auth-keepalive, for a client
// that sends what curl and browsers do.
const (
	beforeToken = "GET /auth/nginx/shop/orders?host=shop.example.com HTTP/1.1\r\n" +
		"Host: keywright-webhook.keywright-system.svc.cluster.local\r\n" +
		"X-Request-ID: 5f0c2b6f0d1e4c7a9b8e3d2c1a0f9e8d\r\n" +
		"X-Original-URL: https://shop.example.com/orders/1234?full=true\r\n" +
		"X-Original-Method: GET\r\n" +
		"X-Sent-From: nginx-ingress-controller\r\n" +
		"X-Real-IP: 203.0.113.7\r\n" +
		"X-Forwarded-For: 203.0.113.7\r\n" +
		"X-Auth-Request-Redirect: /orders/1234?full=true\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: application/json\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Authorization: Bearer "
	afterToken = "\r\n\r\n"
)

func (l *load) askOn(conn net.Conn) error {
	request := []byte(beforeToken)
	answer := make([]byte, 4096)
	for {
		token, ok := l.take()
		if !ok {
			return nil
		}
		request = append(append(request[:len(beforeToken)], token...), afterToken...)
		if _, err := conn.Write(request); err != nil {
			return err
		}
		n := 0
		for !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")) {
			more, err := conn.Read(answer[n:])
			if err != nil {
				return fmt.Errorf("after %q: %w", answer[:n], err)
			}
			n += more
		}
		if got := answer[:n]; !bytes.HasPrefix(got, []byte("HTTP/1.1 200 ")) || !bytes.Contains(got, l.expect) {
			return fmt.Errorf("answered %q", got)
		}
	}
}

func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for another first argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// cpuOf is how long a process has run on cores, in user space and kernel, in
// the kernel's ticks of 10 ms.
func cpuOf(pid int) (float64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	// Behind the command in parentheses: state is field 3, utime and stime are
	// 14 and 15.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, errors.New("reading the server's CPU time: too few fields")
	}
	user, err1 := strconv.ParseFloat(fields[utime], 64)
	system, err2 := strconv.ParseFloat(fields[stime], 64)
	const ticksPerSecond = 100
	return (user + system) / ticksPerSecond, errors.Join(err1, err2)
}
