package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// measure runs f and says how long it took, and the CPU time of a process, in
// user space and kernel.
func measure(pid int, f func() error) (sample, error) {
	// Clocks of processes, as clock_getcpuclockid makes them: to the
	// nanosecond, where /proc has ticks of 10 ms.
	const schedClock = 2
	clock := int32(^pid<<3 | schedClock) //nolint:gosec // PIDs are small
	read := func() (float64, error) {
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0, fmt.Errorf("reading CPU times: %w", err)
		}
		return time.Duration(t.Nano()).Seconds(), nil
	}
	before, err1 := read()
	began := time.Now()
	err2 := f()
	took := time.Since(began)
	after, err3 := read()
	return sample{Seconds: took.Seconds(), ServerCPU: after - before}, errors.Join(err1, err2, err3)
}

// load is the client's side.
type load struct {
	address string
	// once means a new connection for each request.
	once   bool
	tokens []string
	next   int // of tokens

	epoll int
	conns []*conn
	// each is how many requests a connection has open.
	each int
	// unsent and unanswered requests of this run.
	unsent, unanswered int
}

// conn is one connection. Its socket blocks, but is read only when there is
// something to read, and what is written fits into its buffer.
type conn struct {
	talk
	fd      int // -1 when there is none
	open    int // requests
	in, out []byte
}

func (l *load) open(conns int, speak func() talk) error {
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	l.each = inFlight / conns
	for range conns {
		l.conns = append(l.conns, &conn{talk: speak(), fd: -1})
	}
	return nil
}

func (l *load) close() {
	for _, c := range l.conns {
		if c.fd >= 0 {
			_ = unix.Close(c.fd) // nothing is lost
		}
	}
	_ = unix.Close(l.epoll) // nothing is lost
}

// run makes n requests. It ends when all are answered, and on connections for
// one request when those are closed too.
func (l *load) run(n int) error {
	l.unsent, l.unanswered = n, n
	for i := range l.conns {
		if err := l.send(i); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, inFlight)
	last := time.Now()
	for l.unanswered > 0 {
		// It never sleeps: to wake a sleeping load is a part of what the
		// server's write costs, a third of it on a virtual machine, and the
		// slower server of two would pay it more often.
		n, err := unix.EpollWait(l.epoll, events, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("epoll_wait", err)
		case n > 0:
			last = time.Now()
		case time.Since(last) > patience:
			return fmt.Errorf("no answer within %s", patience)
		}
		for _, event := range events[:n] {
			if err := l.receive(int(event.Fd)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dial opens connection i.
func (l *load) dial(i int) error {
	c := l.conns[i]
	address, err := netip.ParseAddrPort(l.address)
	if err != nil {
		return err
	}
	if c.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(c.fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if !l.once { // nothing follows a request that is alone
		if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	c.in = c.in[:0]
	c.out = c.talk.open(c.out)
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})) //nolint:gosec // few
}

// send writes what connection i may ask now, with what else is to be written.
func (l *load) send(i int) (err error) {
	c := l.conns[i]
	for ; c.open < l.each && l.unsent > 0; l.unsent-- {
		if c.fd < 0 {
			if err := l.dial(i); err != nil {
				return err
			}
		}
		if c.out, err = c.ask(c.out, l.tokens[l.next%len(l.tokens)]); err != nil {
			return err
		}
		l.next++
		c.open++
	}
	for len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		c.out = c.out[:copy(c.out, c.out[n:])]
	}
	return nil
}

// receive reads what has arrived on connection i and goes on.
func (l *load) receive(i int) error {
	c := l.conns[i]
	if len(c.in) == cap(c.in) {
		c.in = append(c.in, make([]byte, 16<<10)...)[:len(c.in)]
	}
	n, err := unix.Read(c.fd, c.in[len(c.in):cap(c.in)])
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	if n == 0 { // the server has closed it
		if !l.once || c.open > 0 {
			return fmt.Errorf("closed with %d requests open, after %q", c.open, c.in)
		}
		// Closing it like this leaves nothing behind: ports would run out.
		err := unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err := errors.Join(err, unix.Close(c.fd)); err != nil {
			return os.NewSyscallError("close", err)
		}
		c.fd = -1
		l.unanswered--
		return l.send(i)
	}
	c.in = c.in[:len(c.in)+n]
	used, answers, out, err := c.hear(c.in, c.out)
	if err != nil {
		return err
	}
	c.out = out
	c.in = c.in[:copy(c.in, c.in[used:])]
	c.open -= answers
	if l.once {
		return nil
	}
	l.unanswered -= answers
	return l.send(i)
}
