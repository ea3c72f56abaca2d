package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sweepProgress is how far the sweep, of whichever process, has come: all rows of transactions below seen are acknowledged,
// except for those of the transactions in recheck, which were in progress then or had rows that could not be sent.
type sweepProgress struct {
	seen    int64
	recheck []int64 // sorted, below seen
}

// maxRecheck bounds the length of recheck.
const maxRecheck = 200

// newSweepProgress returns the progress when all transactions below seen have been read, and those in recheck must be read
// again.
func newSweepProgress(seen int64, recheck []int64) sweepProgress {
	slices.Sort(recheck)
	recheck = slices.Compact(recheck)
	if n, _ := slices.BinarySearch(recheck, seen); n < len(recheck) {
		recheck = recheck[:n]
	}
	if len(recheck) > maxRecheck {
		seen, recheck = recheck[maxRecheck], recheck[:maxRecheck]
	}
	return sweepProgress{seen, recheck}
}

// watermark is the transaction id below which all rows are known to be acknowledged.
func (p sweepProgress) watermark() int64 {
	if len(p.recheck) > 0 {
		return p.recheck[0]
	}
	return p.seen
}

// snapshot says which transactions are visible: those below xmax except those in xip, which are in progress.
type snapshot struct {
	xmax int64
	xip  []int64
}

// String returns Postgres' text form.
func (s snapshot) String() string {
	xip := slices.Sorted(slices.Values(s.xip))
	xmin := s.xmax
	texts := make([]string, len(xip))
	for i, x := range xip {
		texts[i] = strconv.FormatInt(x, 10)
		xmin = min(xmin, x)
	}
	return fmt.Sprintf("%d:%d:%s", xmin, s.xmax, strings.Join(texts, ","))
}

// sweepState is the sweep's one row, which all processes read, and the snapshot that it was read in.
type sweepState struct {
	now      snapshot
	progress sweepProgress
	owed     int64         // events, as last counted
	oldest   time.Duration // age of the oldest of them
	counted  snapshot      // of that count
	recount  bool          // all events may be counted again

	writable    bool // the server takes writes
	anyRejected bool
	rejected    []rejectedCount // as last counted
}

// rejectedCount is the number of rejected events of one topic in the sweep's row.
type rejectedCount struct {
	Topic  string `json:"topic"`
	Events int64  `json:"events"`
	Since  int64  `json:"since"` // Unix time
	Reason string `json:"reason"`
}

// readSweepState reads the sweep's row.
func (o *Outbox) readSweepState(ctx context.Context) (state sweepState, err error) {
	var seconds float64
	var rejected string
	err = o.db().QueryRow(ctx, o.queries.Get("ReadSweepState")).Scan(
		&state.writable, &state.now.xmax, &state.now.xip, &state.progress.seen, &state.progress.recheck, &state.owed, &seconds,
		&state.counted.xmax, &state.counted.xip, &state.recount, &state.anyRejected, &rejected)
	if err == nil {
		err = json.Unmarshal([]byte(rejected), &state.rejected)
	}
	if err != nil {
		return state, fmt.Errorf("read the sweep's state: %w", err)
	}
	state.oldest = time.Duration(seconds * float64(time.Second))
	slices.Sort(state.progress.recheck)
	return state, nil
}

// sinceCount returns the progress from which to read the rows that the last count has not seen.
func (s sweepState) sinceCount() sweepProgress {
	recheck := slices.Clone(s.counted.xip)
	for _, x := range s.progress.recheck {
		if x >= s.counted.xmax {
			recheck = append(recheck, x)
		}
	}
	slices.Sort(recheck)
	return sweepProgress{max(s.progress.seen, s.counted.xmax), slices.Compact(recheck)}
}
