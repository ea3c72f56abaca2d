package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"
)

// rates returns the rate per second at each sample, over the second before it.
func (r *outage) rates(of func(sample) int) []float64 {
	rates := make([]float64, len(r.samples))
	for i, s := range r.samples {
		j := i
		for j > 0 && s.at-r.samples[j].at < time.Second {
			j--
		}
		if over := s.at - r.samples[j].at; over > 0 {
			rates[i] = float64(of(s)-of(r.samples[j])) / over.Seconds()
		}
	}
	return rates
}

// mean returns the mean rate per second between two times.
func (r *outage) mean(of func(sample) int, from, to time.Duration) float64 {
	var first, last sample
	for _, s := range r.samples {
		if s.at <= from {
			first = s
		}
		if s.at <= to {
			last = s
		}
	}
	if last.at <= first.at {
		return 0
	}
	return float64(of(last)-of(first)) / (last.at - first.at).Seconds()
}

func committed(s sample) int { return s.committed }
func delivered(s sample) int { return s.delivered }

// String returns a summary of the run.
func (r *outage) String() string {
	end := r.samples[len(r.samples)-1].at
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions a second offered, the broker away (%s) from %v to %v\n\n", outageRate, r.by, r.lost, r.back.Round(100*time.Millisecond))
	fmt.Fprintf(&b, "| | before | during | after |\n| --- | ---: | ---: | ---: |\n")
	for _, row := range []struct {
		name string
		of   func(sample) int
	}{{"transactions/s", committed}, {"delivered/s", delivered}} {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f |\n", row.name, r.mean(row.of, 0, r.lost), r.mean(row.of, r.lost, r.back), r.mean(row.of, r.back, end))
	}
	most := 0
	for _, s := range r.samples {
		most = max(most, s.waiting)
	}
	drained := "did not drain"
	if r.drained > 0 {
		drained = fmt.Sprintf("drained %.1f s after the broker was back", (r.drained - r.back).Seconds())
	}
	fmt.Fprintf(&b, "\nNo transaction failed. At most %d events waited. Delivery went on %.1f s after the broker was back; the backlog %s, under the same load.",
		most, (r.deliveredAgain() - r.back).Seconds(), drained)
	return b.String()
}

// deliveredAgain returns when the first event arrived after the broker was back.
func (r *outage) deliveredAgain() time.Duration {
	before := 0
	for _, s := range r.samples {
		switch {
		case s.at <= r.back:
			before = s.delivered
		case s.delivered > before:
			return s.at
		}
	}
	return r.samples[len(r.samples)-1].at
}

// Dimensions of the diagram, in pixels.
const (
	width, height = 960, 520
	left, right   = 70, 20
	plotWidth     = width - left - right
)

// panel is one of two diagrams, one above the other, with the same time axis.
type panel struct {
	top, height float64
	most        float64 // value at the upper edge
}

func (p panel) y(v float64) float64 { return p.top + p.height*(1-v/p.most) }

func (r *outage) x(at time.Duration) float64 {
	return left + plotWidth*at.Seconds()/r.samples[len(r.samples)-1].at.Seconds()
}

// draw returns the diagram as SVG.
func (r *outage) draw() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#333">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="16">Broker away, %d transactions a second offered</text>`+"\n", left, outageRate)

	rates := [][]float64{r.rates(committed), r.rates(delivered)}
	var backlog []float64
	for _, s := range r.samples {
		backlog = append(backlog, float64(s.waiting))
	}
	upper := panel{top: 60, height: 220, most: ceiling(append(append([]float64{}, rates[0]...), rates[1]...))}
	lower := panel{top: 330, height: 130, most: ceiling(backlog)}
	for _, p := range []panel{upper, lower} {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#f6dcdc"/>`+"\n", r.x(r.lost), p.top, r.x(r.back)-r.x(r.lost), p.height)
		for i := range 5 {
			v := p.most * float64(i) / 4
			fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, p.y(v), left+plotWidth, left-8, p.y(v)+4, v)
		}
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#a33">broker away</text>`+"\n", (r.x(r.lost)+r.x(r.back))/2, upper.top+16)

	fmt.Fprintf(&b, `<path d="%sL%.1f %.1fL%d %.1fZ" fill="#c9b26b" fill-opacity=".6"/>`+"\n", r.line(lower, backlog), r.x(r.samples[len(r.samples)-1].at), lower.y(0), left, lower.y(0))
	for i, color := range []string{"#1f5fa8", "#2e8b57"} {
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", r.line(upper, rates[i]), color)
	}
	for i, l := range []struct{ text, color string }{{"business transactions/s", "#1f5fa8"}, {"events delivered/s", "#2e8b57"}} {
		fmt.Fprintf(&b, `<path d="M%d 45h24" stroke="%s" stroke-width="3"/><text x="%d" y="49">%s</text>`+"\n", left+200*i, l.color, left+200*i+30, l.text)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%.1f">events committed and not delivered</text>`+"\n", left, lower.top-8)
	step := 5 * time.Second
	for at := time.Duration(0); at <= r.samples[len(r.samples)-1].at; at += step {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%.0f s</text>`+"\n", r.x(at), lower.top+lower.height+20, at.Seconds())
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// line returns an SVG path through the values of all samples.
func (r *outage) line(p panel, values []float64) string {
	var b strings.Builder
	for i, s := range r.samples {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", command, r.x(s.at), p.y(values[i]))
	}
	return b.String()
}

// ceiling returns a round number that is not below any value.
func ceiling(values []float64) float64 {
	most := 4.0
	for _, v := range values {
		most = max(most, v)
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, m := range []float64{1, 2, 4, 5, 8, 10} {
		if m*unit >= most {
			return m * unit
		}
	}
	return most
}
