package console

import (
	"fmt"
	"strings"
	"time"
)

// Sizes of a curve in its own units.
const (
	curveWidth  = 120
	curveHeight = 24
)

// curve is a small drawing of how a number went.
type curve struct {
	Points string // of an SVG polyline
	Text   string // the same in words
}

// newCurve draws one of the numbers of samples: "owed", "parked" or "dead".
func newCurve(samples []sample, what string) curve {
	value := func(s sample) int64 {
		switch what {
		case "owed":
			return s.owed
		case "parked":
			return s.parked
		}
		return s.dead
	}
	if len(samples) < 2 {
		return curve{}
	}
	first, last := samples[0], samples[len(samples)-1]
	lowest, highest := value(first), value(first)
	for _, s := range samples {
		lowest, highest = min(lowest, value(s)), max(highest, value(s))
	}
	length := max(last.at.Sub(first.at), time.Second)
	var b strings.Builder
	for _, s := range samples {
		x := float64(curveWidth) * float64(s.at.Sub(first.at)) / float64(length)
		y := float64(curveHeight - 1)
		if highest > 0 {
			y -= float64(curveHeight-2) * float64(value(s)) / float64(highest)
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
	}
	return curve{strings.TrimSpace(b.String()), fmt.Sprintf("%s in the last %s: between %d and %d, now %d", what, span(length), lowest, highest, value(last))}
}
