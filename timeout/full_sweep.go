package timeout

import "time"

// fullSweepShare is the share of its time, 1/fullSweepShare, that a process spends on full sweeps.
const fullSweepShare = 20

// fullSweeps decides which sweeps read all rows that are due, and which leave out what earlier sweeps have claimed. The index
// still has entries of rows that were claimed and have fired, until Postgres cleans it up. While a transaction is open for an
// hour it can't, and to step over all of them at each sweep would delay what is due.
type fullSweeps struct {
	next  time.Time  // by Config.Clock
	floor *time.Time // what had to be swept before was claimed, by Postgres; nil: unknown
}

// from returns the time at which a sweep at now begins to read: nil for a full one.
func (f *fullSweeps) from(now time.Time) *time.Time {
	if !now.Before(f.next) {
		return nil
	}
	return f.floor
}

// done records a full sweep at now that found less than a page. Rows of transactions that were open for longer than
// maxArming when they committed are left to the next full sweep.
func (f *fullSweeps) done(now time.Time, page claimedPage, interval, maxArming time.Duration) {
	f.next = now.Add(max(interval, fullSweepShare*page.took))
	floor := page.now.Add(-maxArming)
	f.floor = &floor
}
