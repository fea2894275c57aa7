package main

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// link is a TCP proxy between one process and the API server: a network that
// can be slow, silent or cut. It is there to inject faults and nothing else.
type link struct {
	address  string
	upstream string

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	cuts     int          // how many faults last
	delay    time.Duration
	// passing is closed while bytes pass, and open while they are held back.
	passing chan struct{}
	conns   map[net.Conn]bool
	closed  bool
	running sync.WaitGroup
}

func newLink(address, upstream string) (*link, error) {
	l := &link{address: address, upstream: upstream, conns: map[net.Conn]bool{}, passing: make(chan struct{})}
	close(l.passing)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.listen()
}

// listen is called with mu held.
func (l *link) listen() error {
	listener, err := net.Listen("tcp", l.address)
	if err != nil {
		return fmt.Errorf("making a link: %w", err)
	}
	l.listener = listener
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.carry(conn) })
		}
	})
	return nil
}

// slow delays all bytes, in both directions.
func (l *link) slow(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = by
}

// cut ends all connections, until the returned function is called. New ones are
// refused, or taken and ended at once: a client may treat the two differently.
func (l *link) cut(refuse bool) (end func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts++
	l.drop(refuse)
	return func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.cuts--; l.cuts > 0 || l.closed || l.listener != nil {
			return nil
		}
		return l.listen()
	}
}

// drop is called with mu held.
func (l *link) drop(listener bool) {
	if listener && l.listener != nil {
		_ = l.listener.Close() // that is the fault
		l.listener = nil
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// silence holds all bytes back until the returned function is called: both
// sides believe that they are connected.
func (l *link) silence() (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan struct{})
	l.passing = held
	return sync.OnceFunc(func() { close(held) })
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.drop(true)
	l.mu.Unlock()
	l.running.Wait()
}

// keep notes a connection, unless the link is cut.
func (l *link) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.cuts > 0 {
		return false
	}
	l.conns[conn] = true
	return true
}

func (l *link) carry(client net.Conn) {
	defer func() {
		_ = client.Close()
		l.mu.Lock()
		delete(l.conns, client)
		l.mu.Unlock()
	}()
	if !l.keep(client) {
		return
	}
	server, err := net.DialTimeout("tcp", l.upstream, 5*time.Second)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // the other side has its error
	var both sync.WaitGroup
	both.Go(func() { l.copy(server, client) })
	both.Go(func() { l.copy(client, server) })
	both.Wait()
}

// copy carries bytes one way, each as late as the link is slow, and then ends
// both connections.
func (l *link) copy(to, from net.Conn) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 256)
	var writing sync.WaitGroup
	writing.Go(func() {
		failed := false
		for p := range pieces {
			if failed {
				continue
			}
			time.Sleep(time.Until(p.due))
			l.mu.Lock()
			passing := l.passing
			l.mu.Unlock()
			<-passing
			if _, err := to.Write(p.bytes); err != nil {
				failed = true
				_ = from.Close()
			}
		}
	})
	for {
		buffer := make([]byte, 16<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			l.mu.Lock()
			delay := l.delay
			l.mu.Unlock()
			pieces <- piece{buffer[:n], time.Now().Add(delay)}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writing.Wait()
	_ = to.Close()
	_ = from.Close()
}
