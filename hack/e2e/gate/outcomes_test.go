//go:build linux

package gate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// outcomes are what the scenarios gave, for the table at the end.
var outcomes outcomeTable

type outcomeTable struct {
	mu   sync.Mutex
	rows map[string]map[string]string // by scenario and caller
}

// add keeps what became of a scenario: the status, or what went wrong.
func (o *outcomeTable) add(scenario string, c *caller, got answer, ok bool) {
	text := fmt.Sprint(got.status)
	switch {
	case !ok:
		text = "FAIL"
	case got.reason == notAsked:
		text += " by itself"
	case got.reason != "":
		text += " " + got.reason
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows == nil {
		o.rows = map[string]map[string]string{}
	}
	if o.rows[scenario] == nil {
		o.rows[scenario] = map[string]string{}
	}
	o.rows[scenario][c.name] = text
}

// table is scenario by caller.
func (o *outcomeTable) table(cs []*caller) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	head := []string{"scenario"}
	for _, c := range cs {
		head = append(head, c.name+" "+c.version)
	}
	_, _ = fmt.Fprintln(w, strings.Join(head, "\t")) // to memory
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, scenario := range slices.Sorted(maps.Keys(o.rows)) {
		line := []string{scenario}
		for _, c := range cs {
			line = append(line, o.rows[scenario][c.name])
		}
		_, _ = fmt.Fprintln(w, strings.Join(line, "\t")) // to memory
	}
	_ = w.Flush() // to memory
	return out.String()
}
