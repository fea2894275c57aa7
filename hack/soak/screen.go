package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// screen is the terminal: what is said stays, and below it one line tells how
// far things are. Where there is no terminal that line comes every two seconds.
type screen struct {
	out      io.Writer
	began    time.Time
	terminal bool

	mu     sync.Mutex
	status func() string // gives the line
	shown  bool
	stop   chan struct{}
	ended  chan struct{}
}

func newScreen(out io.Writer, began time.Time) *screen {
	s := &screen{out: out, began: began, stop: make(chan struct{}), ended: make(chan struct{}), status: func() string { return "" }}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			s.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	rate := 2 * time.Second
	if s.terminal {
		rate = 500 * time.Millisecond
	}
	go func() {
		defer close(s.ended)
		tick := time.NewTicker(rate)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.show()
			case <-s.stop:
				return
			}
		}
	}()
	return s
}

// does says what is being done, until something else is.
func (s *screen) does(what string) { s.tells(func() string { return what }) }

func (s *screen) tells(status func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *screen) show() {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	line := fmt.Sprintf("%5.0fs  %s", time.Since(s.began).Seconds(), status())
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		s.put(line + "\n")
		return
	}
	s.put(fmt.Sprintf("\r\x1b[K%.150s", line))
	s.shown = true
}

// say writes something that stays.
func (s *screen) say(format string, args ...any) {
	_, _ = s.Write([]byte(fmt.Sprintf(format, args...) + "\n")) // as with put
}

// Write lets others write what stays.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown {
		s.put("\r\x1b[K")
		s.shown = false
	}
	return io.WriteString(s.out, strings.ToValidUTF8(string(p), "?"))
}

// put writes; a terminal that is gone takes nothing, and nobody is there to be
// told.
func (s *screen) put(text string) { _, _ = io.WriteString(s.out, text) }

func (s *screen) close() {
	close(s.stop)
	<-s.ended
	if s.shown {
		s.put("\n")
	}
}
