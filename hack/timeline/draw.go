package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keywright/keywright/hack/draw"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// picture is all that is drawn.
type picture struct {
	Spec       v1alpha1.SigningKeySpec
	Start, End time.Time
	Keys       []lifecycle.Key // oldest first
}

// Sizes, in units of which the picture is 860 wide: about the width at which a
// README is shown.
const (
	width    = 860.0
	left     = 76.0 // where the time axes begin
	right    = width - 22
	bar      = 26.0
	row      = 34.0
	ruler    = 44.0 // what a ruler below a row takes
	perGlyph = 7.2  // width of a character, about
)

// style has a ground of its own, so that the text can be read on any page, and
// follows the reader's colour scheme where the viewer tells it.
const style = `
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .head { font-weight: 600 }
  .dim { fill: #57606a }
  .mark { fill: #a40e26 }
  .ground { fill: #ffffff; stroke: #d0d7de }
  .lens { fill: #eef1f4 }
  .halo { stroke: #eef1f4; stroke-width: 5; stroke-linejoin: round; paint-order: stroke }
  .grid { stroke: #d0d7de }
  .at { stroke: #a40e26; stroke-dasharray: 4 3 }
  .ruler { stroke: #57606a; fill: none }
  .planned { fill: #ffffff; stroke: #57606a; stroke-width: 1.5 }
  .published { fill: #d4e3f7; stroke: #6c94c4 }
  .active { fill: #0b5f45; stroke: #0b5f45 }
  .verifying { fill: #f5d57f; stroke: #b98a1d }
  .retired { stroke: #8c959f; stroke-width: 2; stroke-dasharray: 2 5 }
  .on-active { fill: #ffffff }
  .on-verifying, .on-published { fill: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .dim { fill: #9da7b1 }
    .mark { fill: #ff9a8f }
    .ground { fill: #0d1117; stroke: #30363d }
    .lens { fill: #1b222b }
    .halo { stroke: #1b222b }
    .grid { stroke: #30363d }
    .at { stroke: #ff9a8f }
    .ruler { stroke: #9da7b1 }
    .planned { fill: #0d1117; stroke: #9da7b1 }
    .published { fill: #24405f; stroke: #6c94c4 }
    .active { fill: #35a37c; stroke: #35a37c }
    .verifying { fill: #8a6a1c; stroke: #d9b24a }
    .retired { stroke: #6e7681 }
    .on-active { fill: #06140f }
    .on-verifying, .on-published { fill: #f0f3f6 }
  }
`

// svg is the picture.
type svg struct{ draw.Elements }

// axis maps times to the width of the picture.
type axis struct{ from, to time.Time }

func (a axis) x(t time.Time) float64 {
	return left + (right-left)*float64(t.Sub(a.from))/float64(a.to.Sub(a.from))
}

func (a axis) shows(t time.Time) bool { return !t.Before(a.from) && !t.After(a.to) }

// rotation is one that is shown from before until the old key has retired.
type rotation struct{ old, successor, next *lifecycle.Key }

// magnified is the last rotation that ends before the picture does.
func (p picture) magnified() (r rotation, ok bool) {
	for i := 0; i+2 < len(p.Keys); i++ {
		if until := p.Keys[i].VerifyUntil; !until.IsZero() && until.Before(p.End) && !p.Keys[i+2].PublishedAt.IsZero() {
			r, ok = rotation{&p.Keys[i], &p.Keys[i+1], &p.Keys[i+2]}, true
		}
	}
	return r, ok
}

// drawn gives the picture in SVG: all keys over the whole time, and below it
// one rotation, magnified, with the waits that make it safe.
func drawn(p picture) (string, error) {
	r, ok := p.magnified()
	if !ok {
		return "", errors.New("no rotation is over within the time that is drawn: raise -days")
	}
	w := p.waits(r)
	whole := axis{p.Start, p.End}
	at := r.successor.ActivatedAt
	longest := max(w.maySign.Sub(at), r.old.VerifyUntil.Sub(at))
	lens := axis{at.Add(-longest * 3 / 10), at.Add(longest * 13 / 10)}

	top := 52.0
	bottom := top + row*float64(len(p.Keys))
	lensTop := bottom + 44
	lensBottom := lensTop + 58 + 3*row + 2*ruler + 28
	height := lensBottom + 66

	s := &svg{}
	fmt.Fprintf(&s.Builder, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" role="img" aria-labelledby="title desc">
  <title id="title">The keys of a SigningKey over %s, and one rotation magnified</title>
  <desc id="desc">%s</desc>
  <style>%s  </style>
`, draw.Number(width), draw.Number(height), span(p.End.Sub(p.Start)), p.inWords(r, w), style)
	s.Rect("ground", 0.5, 0.5, width-1, height-1)
	s.Path("lens", "M%s %sH%sV%sL%s %sV%sH%sV%sL%s %sZ", whole.x(lens.from)-2, top, whole.x(lens.to)+2, bottom,
		width-8, lensTop, lensBottom, 8, lensTop, whole.x(lens.from)-2, bottom)

	s.Text("head", "start", left, 32, fmt.Sprintf("%s of a SigningKey that rotates every %s", span(p.End.Sub(p.Start)), span(p.Spec.Rotation.Interval.Duration)))
	for i := range p.Keys {
		var successor *lifecycle.Key
		if i+1 < len(p.Keys) {
			successor = &p.Keys[i+1]
		}
		s.life(&p.Keys[i], successor, whole, top+row*float64(i))
	}
	s.ticks(whole, p.Start, bottom, "")
	s.magnify(r, w, lens, lensTop)
	s.legend(lensBottom + 28)
	s.WriteString("</svg>\n")
	return s.String(), nil
}

// waits are what makes a rotation safe.
type waits struct {
	v, s, e, leeway, ttl time.Duration
	maySign              time.Time // published + V + e, of the next key
}

func (p picture) waits(r rotation) waits {
	g := p.Spec.Propagation
	w := waits{
		v: g.VerifierLag.Duration, s: g.SignerLag.Duration, e: g.ClockSkew.Duration,
		leeway: g.Leeway.Duration, ttl: r.old.MaxTokenTTL,
	}
	w.maySign = lifecycle.Ceil(r.next.PublishedAt.Add(w.v + w.e))
	return w
}

func (w waits) verify() time.Duration { return w.s + w.ttl + w.leeway + 2*w.e }

// inWords is the picture for those who do not see it.
func (p picture) inWords(r rotation, w waits) string {
	return fmt.Sprintf("%d keys follow one another. Each is published while the one before it signs, then signs for %s, then goes on verifying for %s, then is retired. "+
		"Magnified: the moment %s takes over from %s. %s, published at that moment, may sign %s later at the earliest (V + e). %s verifies for %s more (S + L + leeway + 2e).",
		len(p.Keys), span(p.Spec.Rotation.Interval.Duration), span(w.verify()), r.successor.ID, r.old.ID,
		capital(r.next.ID), span(w.v+w.e), capital(r.old.ID), span(w.verify()))
}

// life draws one key in a row that begins at y. It verifies from when its
// successor was chosen, also as long as no end is known.
func (s *svg) life(k, successor *lifecycle.Key, a axis, y float64) {
	s.Text("", "end", left-10, y+bar/2+5, k.ID)
	until := k.VerifyUntil
	if until.IsZero() {
		until = a.to
	} else if until.Before(a.to) {
		from := max(left, a.x(until))
		s.Path("retired", "M%s %sH%s", from+4, y+bar/2, right)
		s.label("dim", "retired", from, right, y-9)
	}
	s.part("published", "published, stands by", a, k.PublishedAt, k.ActivatedAt, y)
	if !k.ActivatedAt.IsZero() {
		var over time.Time
		if successor != nil {
			over = successor.ActivatedAt
		}
		s.part("active", "active, signs", a, k.ActivatedAt, over, y)
		if !over.IsZero() {
			s.part("verifying", "verifying, its tokens pass", a, over, until, y)
		}
	}
	if a.shows(k.CreatedAt) {
		s.diamond(a.x(k.CreatedAt), y+bar/2)
	}
}

// part draws what of a span lies within the axis; a zero end has not come.
func (s *svg) part(class, words string, a axis, from, to time.Time, y float64) {
	if to.IsZero() || to.After(a.to) {
		to = a.to
	}
	if from.Before(a.from) {
		from = a.from
	}
	if !from.Before(to) {
		return
	}
	x := a.x(from)
	end := max(a.x(to), x+3) // so that it shows at all
	s.Rect(class, x, y, end-x, bar)
	s.label("on-"+class, words, x, end, y)
}

// label writes words into a bar, or the first of them, as far as they fit.
func (s *svg) label(class, words string, from, to, y float64) {
	first, _, _ := strings.Cut(words, ",")
	for _, text := range []string{words, first} {
		if float64(len(text)+2)*perGlyph < to-from {
			s.Text(class, "middle", (from+to)/2, y+bar/2+5, text)
			return
		}
	}
}

func (s *svg) diamond(x, y float64) {
	s.Path("planned", "M%s %sL%s %sL%s %sL%s %sZ", x-5, y, x, y-5, x+5, y, x, y+5)
}

// tickSteps are distances between two ticks.
var tickSteps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 2 * 24 * time.Hour, 5 * 24 * time.Hour, 10 * 24 * time.Hour, 15 * 24 * time.Hour, 30 * 24 * time.Hour,
}

// ticks writes times below a panel, counted from zero.
func (s *svg) ticks(a axis, zero time.Time, y float64, sign string) {
	step := 90 * 24 * time.Hour
	for i := len(tickSteps) - 1; i >= 0 && a.to.Sub(a.from)/tickSteps[i] <= 8; i-- {
		step = tickSteps[i]
	}
	for t := zero.Add(-step * 16); !t.After(a.to); t = t.Add(step) {
		if t.Before(a.from) {
			continue
		}
		words := span(t.Sub(zero).Abs())
		switch {
		case t.Before(zero):
			words = "\u2212" + words
		case t.After(zero):
			words = sign + words
		}
		s.Path("grid", "M%s %sv4", a.x(t), y)
		x, anchor := a.x(t), "middle"
		if x+float64(len(words))*perGlyph/2 > width-4 {
			x, anchor = right, "end"
		}
		s.Text("dim", anchor, x, y+18, words)
	}
}

// magnify draws one rotation.
func (s *svg) magnify(r rotation, w waits, a axis, top float64) {
	at := r.successor.ActivatedAt
	first := top + 58
	second := first + row + ruler
	third := second + row
	end := third + row + ruler

	s.Text("head", "start", left, top+24, fmt.Sprintf("%s takes over from %s, magnified", capital(r.successor.ID), r.old.ID))
	s.mark(a.x(at), top+38, end, top+48, r.successor.ID+" signs")
	s.mark(a.x(r.old.VerifyUntil), top+38, end, top+48, r.old.ID+" is refused")
	s.mark(a.x(w.maySign), third, end, third+row+6, r.next.ID+" may sign")
	s.life(r.old, r.successor, a, first)
	s.rule(a, r.old.DeactivatedAt, first+row, []piece{{"S", w.s}, {"L", w.ttl}, {"\u03bb", w.leeway}, {"2e", 2 * w.e}})
	s.life(r.successor, r.next, a, second)
	s.life(r.next, nil, a, third)
	s.rule(a, r.next.PublishedAt, third+row, []piece{{"V", w.v}, {"e", w.e}})
	s.ticks(a, at, end, "+")
}

// mark draws an instant, with words to its right.
func (s *svg) mark(x, from, to, y float64, words string) {
	s.Path("at", "M%s %sV%s", x, from, to)
	s.Text("mark halo", "start", x+5, y, words)
}

// piece is one summand of a wait.
type piece struct {
	name string
	long time.Duration
}

// rule draws a wait as the sum that it is.
func (s *svg) rule(a axis, from time.Time, y float64, pieces []piece) {
	x := a.x(from)
	names, spans, sum := []string{}, []string{}, time.Duration(0)
	s.Path("ruler", "M%s %sv10", x, y-4)
	at := from
	for _, p := range pieces {
		at = at.Add(p.long)
		s.Path("ruler", "M%s %sH%sm0 -5v10", a.x(at.Add(-p.long)), y+1, a.x(at))
		names, spans, sum = append(names, p.name), append(spans, span(p.long)), sum+p.long
	}
	s.Text("halo", "start", x+6, y+22, fmt.Sprintf("%s = %s = %s", strings.Join(names, " + "), strings.Join(spans, " + "), span(sum)))
}

// legend says what the colours and letters mean.
func (s *svg) legend(y float64) {
	x := 20.0
	for _, entry := range []struct{ class, words string }{
		{"planned", "planned, for a moment"},
		{"published", "published"},
		{"active", "active"},
		{"verifying", "verifying"},
		{"retired", "retired"},
	} {
		switch entry.class {
		case "planned":
			s.diamond(x+9, y-5)
		case "retired":
			s.Path("retired", "M%s %sh20", x, y-5)
		default:
			s.Rect(entry.class, x, y-11, 18, 12)
		}
		s.Text("", "start", x+26, y, entry.words)
		x += 26 + float64(len(entry.words))*perGlyph + 26
	}
	s.Text("dim", "start", 20, y+24, "V verifierLag \u00b7 S signerLag \u00b7 L maxTokenTTL \u00b7 \u03bb leeway \u00b7 e clockSkew")
}

// span writes a time as people do: 30 days, 1h8m, 90s.
func span(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d == 0:
		return "0"
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	text := d.String()
	text = strings.TrimSuffix(text, "m0s") + strings.Repeat("m", strings.Count(text, "m0s"))
	return strings.TrimSuffix(text, "h0m") + strings.Repeat("h", strings.Count(text, "h0m"))
}

func capital(words string) string { return strings.ToUpper(words[:1]) + words[1:] }
