//go:build race

package rocketflowtest

// raceEnabled is whether the race detector watches this program.
const raceEnabled = true
