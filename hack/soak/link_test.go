package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestLink carries, delays, holds back and cuts.
func TestLink(t *testing.T) {
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // nothing was written
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }() // an echo, until the test ends
		}
	}()
	addresses, err := freeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(addresses[0], server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		return conn, bufio.NewReader(conn)
	}
	conn, lines := dial()
	echo := func() time.Duration {
		t.Helper()
		sent := time.Now()
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := lines.ReadString('\n'); got != "hello\n" {
			t.Fatalf("the echo is %q, %v", got, err)
		}
		return time.Since(sent)
	}
	echo()
	l.slow(50 * time.Millisecond)
	if took := echo(); took < 100*time.Millisecond {
		t.Errorf("a slow link echoes in %s, want 50ms each way", took)
	}
	l.slow(0)
	end := l.silence()
	time.AfterFunc(100*time.Millisecond, end)
	if took := echo(); took < 90*time.Millisecond {
		t.Errorf("a silent link echoes after %s, want 100ms", took)
	}
	for _, refuse := range []bool{false, true} {
		mend := l.cut(refuse)
		if _, err := lines.ReadString('\n'); err == nil {
			t.Error("a connection outlived the cut")
		}
		conn, err = net.Dial("tcp", l.address)
		switch {
		case refuse && !errors.Is(err, syscall.ECONNREFUSED):
			t.Errorf("a connection to a link that is cut: %v, %v, want that it is refused", conn, err)
		case !refuse && err != nil:
			t.Errorf("a connection to a link that is cut: %v, want one that ends", err)
		case !refuse:
			if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				t.Error("a connection to a link that is cut carries")
			}
		}
		if err := mend(); err != nil {
			t.Fatal(err)
		}
		conn, lines = dial()
		echo()
	}
}
