package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/api/v1alpha1"
)

// tally counts one scenario.
type tally struct {
	sent, asWanted int
	want           int
	other          map[string]int
}

// report is what the load came to.
type report struct {
	cases map[string]*tally
	// requests, refused (a valid one) and accepted wrongly.
	requests, refused, wrongly int
	latencies                  []time.Duration
	took                       time.Duration
	rotations                  int
	active                     string
	retired                    map[string]bool
	// lives are the keys' states, a letter a second, by key ID in their order.
	order []string
	lives map[string][]byte
	ticks int
	last  int // requests at the last tick
}

// count notes one answer. Anything but the wanted answer is a fault: a valid
// request that does not get through, however it fails, counts as refused.
func (r *report) count(s scenario, status int, err error, took time.Duration) {
	t := r.cases[s.name]
	if t == nil {
		t = &tally{want: s.want, other: map[string]int{}}
		r.cases[s.name] = t
	}
	t.sent++
	r.requests++
	r.latencies = append(r.latencies, took)
	switch {
	case err == nil && status == s.want:
		t.asWanted++
		return
	case err != nil:
		t.other[err.Error()]++
	default:
		t.other[fmt.Sprint(status)]++
	}
	if s.want == http.StatusOK {
		r.refused++
	} else if status == http.StatusOK {
		r.wrongly++
	}
}

var letters = map[v1alpha1.KeyState]byte{
	v1alpha1.KeyPublished: '.', v1alpha1.KeyActive: '#', v1alpha1.KeyVerifying: '-', v1alpha1.KeyRetired: ' ',
}

// second notes the keys' states and gives the line for the terminal.
func (l *load) second(sk *v1alpha1.SigningKey) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.report
	if r.lives == nil {
		r.lives, r.retired = map[string][]byte{}, map[string]bool{}
	}
	now := map[string]byte{}
	for i := len(sk.Status.Keys) - 1; i >= 0; i-- {
		k := sk.Status.Keys[i]
		if r.lives[k.KeyID] == nil {
			if k.State == v1alpha1.KeyRetired {
				continue
			}
			r.order = append(r.order, k.KeyID)
			r.lives[k.KeyID] = []byte(strings.Repeat(" ", r.ticks))
		}
		now[k.KeyID] = letters[k.State]
		if k.State == v1alpha1.KeyRetired {
			r.retired[k.KeyID] = true
		}
	}
	for _, id := range r.order {
		letter, ok := now[id]
		if !ok {
			letter = ' '
		}
		r.lives[id] = append(r.lives[id], letter)
	}
	r.ticks++
	if r.active != "" && r.active != sk.Status.ActiveKeyID {
		r.rotations++
	}
	r.active = sk.Status.ActiveKeyID
	line := fmt.Sprintf("%5ds  %4d requests/s  refused %d  accepted wrongly %d  rotations %d  |", r.ticks, r.requests-r.last, r.refused, r.wrongly, r.rotations)
	r.last = r.requests
	for _, id := range r.order {
		if letter := now[id]; letter != 0 && letter != ' ' {
			line += fmt.Sprintf(" %.4s%c", id, letter)
		}
	}
	return line
}

// text is the whole report.
func (r *report) text() string {
	var b strings.Builder
	b.WriteString("\nThe keys, a column a second:   . published, stands by   # active, signs   - verifies\n\n")
	for _, id := range r.order {
		fmt.Fprintf(&b, "  %.8s |%s\n", id, r.lives[id])
	}
	b.WriteString("\n  case                                     sent   wanted answer   as wanted\n")
	for _, s := range scenarios {
		t := r.cases[s.name]
		if t == nil {
			fmt.Fprintf(&b, "  %-40s %5d\n", s.name, 0)
			continue
		}
		fmt.Fprintf(&b, "  %-40s %5d   %13d   %9d", s.name, t.sent, t.want, t.asWanted)
		for what, n := range t.other {
			fmt.Fprintf(&b, "   %s: %d", what, n)
		}
		b.WriteString("\n")
	}
	slices.Sort(r.latencies)
	fmt.Fprintf(&b, "\nrequests: %d in %.0fs (%.0f a second), median %s, p99 %s\nrotations: %d\nrefused: %d\naccepted wrongly: %d\n",
		r.requests, r.took.Seconds(), r.rate(), r.quantile(0.5), r.quantile(0.99), r.rotations, r.refused, r.wrongly)
	return b.String()
}

func (r *report) rate() float64 { return float64(r.requests) / r.took.Seconds() }

func (r *report) quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(q*float64(len(r.latencies)-1))].Round(10 * time.Microsecond)
}

// verdict is nil when the demo showed what it promises.
func (r *report) verdict() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.refused > 0 {
		fault("%d valid requests were refused", r.refused)
	}
	if r.wrongly > 0 {
		fault("%d invalid requests were let in", r.wrongly)
	}
	if r.rotations < wantRotations {
		fault("%d rotations, not at least %d", r.rotations, wantRotations)
	}
	if r.rate() < wantRate {
		fault("%.0f requests a second, not at least %d: is the machine busy with something else?", r.rate(), wantRate)
	}
	for _, s := range scenarios {
		if t := r.cases[s.name]; t == nil {
			fault("case %q was never sent", s.name)
		} else if t.asWanted != t.sent && s.want != http.StatusOK {
			fault("case %q: %d of %d had another answer than %d", s.name, t.sent-t.asWanted, t.sent, s.want)
		}
	}
	return errors.Join(errs...)
}
