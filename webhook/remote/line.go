package remote

import "slices"

// How many sources are asked at the same time.
const (
	// atOnce is of those that answered last time, and as many of all others:
	// who does not answer holds up none that does.
	atOnce = 16
	// atOnceOfOne is how many of them are fetched for one namespace.
	atOnceOfOne = 4
)

// line is where sources wait for their fetch. Namespaces take turns, and a
// fetch that begins is one namespace's turn: however many sources one has, and
// however long they hang, another waits for as many turns as there are
// namespaces before it. A source that several name waits in each of theirs, and
// goes when the first of them has its turn.
//
// It is not safe for use by several goroutines.
type line struct {
	// busy are the fetches that go on, and of those each namespace's.
	busy int
	of   map[string]int
	// turns are the namespaces with sources that wait, the next one first.
	turns   []string
	waiting map[string][]*source
}

func newLine() *line { return &line{of: map[string]int{}, waiting: map[string][]*source{}} }

// join makes s wait for namespaces, if it does not.
func (l *line) join(s *source, namespaces []string) {
	for _, namespace := range namespaces {
		if slices.Contains(s.waits, namespace) {
			continue
		}
		s.waits = append(s.waits, namespace)
		if len(l.waiting[namespace]) == 0 {
			l.turns = append(l.turns, namespace)
		}
		l.waiting[namespace] = append(l.waiting[namespace], s)
	}
}

// next takes out the source that is to be fetched now, and says for which
// namespace; nil when none is, or too many are being fetched.
func (l *line) next() (s *source, namespace string) {
	if l.busy == atOnce {
		return nil, ""
	}
	for i, namespace := range l.turns {
		if l.of[namespace] == atOnceOfOne {
			continue
		}
		l.turns = append(slices.Delete(l.turns, i, i+1), namespace)
		s = l.waiting[namespace][0]
		l.leave(s)
		l.busy++
		l.of[namespace]++
		return s, namespace
	}
	return nil, ""
}

// leave takes s out.
func (l *line) leave(s *source) {
	for _, namespace := range s.waits {
		rest := l.waiting[namespace]
		i := slices.Index(rest, s)
		if rest = slices.Delete(rest, i, i+1); len(rest) > 0 {
			l.waiting[namespace] = rest
			continue
		}
		delete(l.waiting, namespace)
		i = slices.Index(l.turns, namespace)
		l.turns = slices.Delete(l.turns, i, i+1)
	}
	s.waits = nil
}

// done says that a fetch for a namespace has ended.
func (l *line) done(namespace string) {
	l.busy--
	if l.of[namespace]--; l.of[namespace] == 0 {
		delete(l.of, namespace)
	}
}
