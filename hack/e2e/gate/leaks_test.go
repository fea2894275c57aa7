//go:build linux

package gate

import "sync"

// leakWindow is how many characters of a secret in a row make a leak: enough
// that none appears by chance.
const leakWindow = 16

// leakSet holds all windows of all secrets: tokens and private members of JWKs.
type leakSet struct {
	mu      sync.Mutex
	windows map[string]bool
	secrets int
}

var leaks leakSet

// add remembers secrets. What is shorter than a window is not looked for.
func (l *leakSet) add(secrets ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.windows == nil {
		l.windows = map[string]bool{}
	}
	for _, s := range secrets {
		if len(s) >= leakWindow {
			l.secrets++
		}
		for i := 0; i+leakWindow <= len(s); i++ {
			l.windows[s[i:i+leakWindow]] = true
		}
	}
}

// find gives where in a text a part of a secret is.
func (l *leakSet) find(text string) (at int, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; i+leakWindow <= len(text); i++ {
		if l.windows[text[i:i+leakWindow]] {
			return i, true
		}
	}
	return 0, false
}
