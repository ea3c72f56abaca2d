package main

import "context"

var streamCounts = []int{1, 8, 64}

// handled is one measurement.
type handled struct {
	kind    string
	streams int
	perSec  float64
}

func (b *bed) handling(ctx context.Context) ([]handled, error) { return nil, nil }
