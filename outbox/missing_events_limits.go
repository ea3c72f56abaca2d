package outbox

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
)

// Limits of the requests that a process accepts in a second: of all requesters, of one requester, and of one requester for
// one stream. A requester repeats a refused request for as long as events are missing.
const (
	requestRate, requestBurst                       = 300, 600
	requesterRate, requesterBurst                   = 100, 200
	requesterAndStreamRate, requesterAndStreamBurst = 1, 4

	// Bytes are limited to Config.ResendBytes a second for one requester, and to requestersAtFullRate times that for all, each
	// with bursts of what byteBurstSeconds allow.
	requestersAtFullRate = 4
	byteBurstSeconds     = 4
	eventWeight          = 1 << 10 // bytes that an event counts in addition to its body

	// maxRequestBytes is the size limit of a request's body.
	maxRequestBytes = 4 << 10
)

// The reasons why a request is refused.
var (
	errTooManyRequests  = errors.New("too many requests a second")
	errRequesterTooMany = errors.New("too many requests a second by this requester")
	errStreamTooOften   = errors.New("too many requests by this requester for this stream")
	errRequesterBytes   = errors.New("this requester was sent too many bytes")
	errAllBytes         = errors.New("too many bytes were sent again")
)

// requestLimits limits which requests are accepted. A requester is the source that a request names. A requester with too many
// requests doesn't affect others. A sender that invents requesters can use up the limits that all share; that is
// limited by the right to publish to rocketflow.MissingEventsTopic.
//
// Requesters and streams share a fixed number of limiters, chosen by a hash with a random seed: so memory is bounded, a
// sender can't choose whose limiter it shares, and no limiter is reset because others came.
type requestLimits struct {
	requests, bytes *rate.Limiter
	perRequester    int // bytes a second

	mu         sync.Mutex
	seed       maphash.Seed
	requesters [4096]*requesterLimits
	pairs      [8192]*rate.Limiter // of a requester and a stream
}

type requesterLimits struct{ requests, bytes *rate.Limiter }

func newRequestLimits(perRequester int) *requestLimits {
	all := requestersAtFullRate * perRequester
	return &requestLimits{
		requests: rate.NewLimiter(requestRate, requestBurst), bytes: rate.NewLimiter(rate.Limit(all), byteBurstSeconds*all),
		perRequester: perRequester, seed: maphash.MakeSeed(),
	}
}

// allow counts a request against the limits, or returns why it is refused.
func (l *requestLimits) allow(now time.Time, requester string, s rocketflow.Stream) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, pair := l.requester(requester), l.pair(requester, s)
	switch {
	case r.bytes.TokensAt(now) < 1:
		return errRequesterBytes
	case !r.requests.AllowN(now, 1): // before the pair's, whose limiter it may share with another requester
		return errRequesterTooMany
	case !pair.AllowN(now, 1):
		return errStreamTooOften
	case l.bytes.TokensAt(now) < 1:
		return errAllBytes
	case !l.requests.AllowN(now, 1):
		return errTooManyRequests
	}
	return nil
}

// sent counts an event that was sent to a requester. It never waits: the limits go below zero, and requests are refused
// until they have recovered.
func (l *requestLimits) sent(now time.Time, requester string, e rocketflow.Event) {
	n := len(e.Body) + eventWeight
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, limiter := range []*rate.Limiter{l.requester(requester).bytes, l.bytes} {
		for rest := n; rest > 0; rest -= limiter.Burst() {
			limiter.ReserveN(now, min(rest, limiter.Burst()))
		}
	}
}

func (l *requestLimits) requester(requester string) *requesterLimits {
	slot := &l.requesters[maphash.String(l.seed, requester)%uint64(len(l.requesters))]
	if *slot == nil {
		*slot = &requesterLimits{
			rate.NewLimiter(requesterRate, requesterBurst), rate.NewLimiter(rate.Limit(l.perRequester), byteBurstSeconds*l.perRequester),
		}
	}
	return *slot
}

func (l *requestLimits) pair(requester string, s rocketflow.Stream) *rate.Limiter {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, text := range []string{requester, s.Source, s.Topic, s.Subject} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	slot := &l.pairs[h.Sum64()%uint64(len(l.pairs))]
	if *slot == nil {
		*slot = rate.NewLimiter(requesterAndStreamRate, requesterAndStreamBurst)
	}
	return *slot
}
