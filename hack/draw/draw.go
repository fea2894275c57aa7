// Package draw writes the elements of SVG pictures (SVG 1.1). Sizes and places
// are in the picture's own units.
package draw

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Elements gathers what is drawn.
type Elements struct{ strings.Builder }

// Number writes a number with one digit at most, so that files are short and
// the same on every machine.
func Number(x float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", math.Round(x*10)/10), ".0")
}

// Rect draws a rectangle with its upper left corner at x and y.
func (e *Elements) Rect(class string, x, y, w, h float64) {
	fmt.Fprintf(&e.Builder, "  <rect class=%q x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" rx=\"2\"/>\n", class, Number(x), Number(y), Number(w), Number(h))
}

// Path draws d, path data with a %s for each number of at.
func (e *Elements) Path(class, d string, at ...float64) {
	args := make([]any, len(at))
	for i, x := range at {
		args[i] = Number(x)
	}
	fmt.Fprintf(&e.Builder, "  <path class=%q d=\"%s\"/>\n", class, fmt.Sprintf(d, args...))
}

// Text writes words with their start, middle or end at x, and y below them.
func (e *Elements) Text(class, anchor string, x, y float64, words string) {
	fmt.Fprintf(&e.Builder, "  <text class=%q text-anchor=%q x=\"%s\" y=\"%s\">%s</text>\n", class, anchor, Number(x), Number(y), html.EscapeString(words))
}
