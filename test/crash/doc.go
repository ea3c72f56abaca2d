// Package crash kills publishers and consumers with SIGKILL between each two of their steps, restarts them, and
// checks that what was committed was handled: once, in order, and nothing else. It has tests alone; they run as real
// processes on a real Postgres and a real broker.
package crash
