package main

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/keywright/keywright/hack/draw"
)

// Sizes, in units of which the picture is 860 wide: about the width at which a
// page is shown.
const (
	width  = 860.0
	left   = 330.0 // where bars begin
	unit   = 310.0 // what a ratio of 1 is long
	most   = 1.06  // ratio; longer bars are cut
	row    = 46.0
	margin = 20.0
)

// style has a ground of its own, so that the text can be read on any page, and
// follows the reader's colour scheme where the viewer tells it.
const style = `
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .head { font-weight: 600 }
  .dim { fill: #57606a; font-size: 12px }
  .ground { fill: #ffffff; stroke: #d0d7de }
  .floor { fill: #c3cad1 }
  .met { fill: #0b5f45 }
  .missed { fill: #d98e2b }
  .spread { stroke: #1f2328; fill: none }
  .bar { stroke: #a40e26; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .dim { fill: #9da7b1 }
    .ground { fill: #0d1117; stroke: #30363d }
    .floor { fill: #4a535d }
    .met { fill: #35a37c }
    .missed { fill: #d9a04a }
    .spread { stroke: #e6edf3 }
    .bar { stroke: #ff9a8f }
  }
`

// svg is the picture.
type svg struct{ draw.Elements }

// line is one row of the picture: a bar that is value long of 1, beside a mark.
type line struct {
	name, detail, measured string
	value, low, high, mark float64
	met, floor             bool
}

// lines are the cases, then the figures as parts of their limits.
func (o *outcome) lines() (ratios, parts []line) {
	for i := range o.results {
		r := &o.results[i]
		v := r.judge()
		by := "by rate"
		if v.byTime {
			by = "by CPU time"
		}
		of := func(side int) float64 { return median(each(r.samples[side], sample.perRequest)) }
		ratio := median(v.counts())
		ratios = append(ratios, line{
			name:     r.name,
			detail:   fmt.Sprintf("floor %.1f, gate %.1f µs of CPU a request", of(floor), of(gate)),
			measured: fmt.Sprintf("%.3f %s, bar %.2f", ratio, by, r.bar),
			value:    ratio, low: slices.Min(v.counts()), high: slices.Max(v.counts()), mark: r.bar,
			met: ratio >= r.bar, floor: true,
		})
	}
	for _, f := range o.figures {
		parts = append(parts, line{
			name: f.of, detail: f.what, measured: fmt.Sprintf("%s of %s", f.text(f.value), f.text(f.limit)),
			value: f.value / f.limit, low: f.low / f.limit, high: f.high / f.limit, mark: 1, met: f.value <= f.limit,
		})
	}
	return ratios, parts
}

// picture gives the report in SVG: bars of the gate beside those of its floors,
// then what has limits.
func (o *outcome) picture() string {
	ratios, parts := o.lines()
	s := &svg{}
	y := 46.0
	panel := func(head string, lines []line) {
		if len(lines) == 0 {
			return
		}
		s.Text("head", "start", margin, y, head)
		y += 16
		for _, l := range lines {
			s.line(l, y)
			y += row
		}
		y += 30
	}
	panel("The gate (coloured) beside its floor (grey): requests a second of one core", ratios)
	panel("Parts of what they may be", parts)
	s.Text("dim", "start", margin, y, o.machine)
	s.Text("dim", "start", margin, y+18, o.setting)
	s.Text("dim", "start", margin, y+36, "Red lines are the bars to meet; thin lines go from the lowest to the highest.")
	height := y + 54

	var words []string
	for _, l := range append(ratios, parts...) {
		words = append(words, fmt.Sprintf("%s, %s: %s, %s.", l.name, l.detail, l.measured, met(l.met)))
	}
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" role="img" aria-labelledby="title desc">
  <title id="title">The gate beside its floors</title>
  <desc id="desc">%s</desc>
  <style>%s  </style>
  <rect class="ground" x="0.5" y="0.5" width="%s" height="%s" rx="2"/>
`, draw.Number(width), draw.Number(height), html.EscapeString(strings.Join(words, " ")), style, draw.Number(width-1), draw.Number(height-1))
	return out.String() + s.String() + "</svg>\n"
}

// line draws one row that begins at y.
func (s *svg) line(l line, y float64) {
	at := func(ratio float64) float64 { return left + unit*min(ratio, most) }
	s.Text("", "start", margin, y+14, l.name)
	s.Text("dim", "start", margin, y+31, l.detail)
	top := y + 4
	if l.floor {
		s.Rect("floor", left, top, unit, 8)
		top += 10
	}
	s.Rect(met(l.met), left, top, max(at(l.value)-left, 1), 16)
	s.Path("spread", "M%s %sV%sM%s %sH%sM%s %sV%s", at(l.low), top+4, top+12, at(l.low), top+8, at(l.high), at(l.high), top+4, top+12)
	s.Path("bar", "M%s %sV%s", at(l.mark), y, top+20)
	s.Text("dim", "start", left+unit+26, y+14, l.measured)
	s.Text("", "start", left+unit+26, y+31, met(l.met))
}
