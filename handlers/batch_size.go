package handlers

// batchSize adapts how many events a lane runs in one transaction. It begins with a few. A failing event, a deadlock and a
// serialization failure halve it. A successful turn doubles it. Each conflict doubles the number of successful turns that the
// next growth takes, up to growAfterMax, because Postgres takes its time to find a deadlock.
type batchSize struct {
	limit, most int
	successes   int // successful turns since limit changed
	wanted      int // successes after which limit grows
}

const (
	batchStart   = 4 // the limit of a lane that begins
	growAfter    = 1
	growAfterMax = 256
)

func newBatchSize(most int) batchSize {
	return batchSize{limit: min(most, batchStart), most: most, wanted: growAfter}
}

// succeeded is called with each turn that commits.
func (b *batchSize) succeeded() {
	if b.limit == b.most {
		return
	}
	if b.successes++; b.successes < b.wanted {
		return
	}
	if b.limit, b.successes = min(2*b.limit, b.most), 0; b.limit == b.most {
		b.wanted = growAfter
	}
}

// failed is called with the error of a turn of several events.
func (b *batchSize) failed(err error) {
	b.limit, b.successes = max(1, b.limit/2), 0
	if isConflict(err) {
		b.wanted = min(2*b.wanted, growAfterMax)
	}
}
