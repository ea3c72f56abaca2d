// Package guards is a mutation test of the chaos test: it removes the guards of outbox and handlers one after the other, and
// checks that chaos finds the violation that each guard prevents. It contains only tests. They build chaos from changed copies
// of the sources by the Go tool's -overlay, so that production code has no switches.
package guards
