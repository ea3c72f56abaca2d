package outbox

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
)

// A process answers so many questions a second, of all askers, of one, and of one about one stream. What is refused is
// asked again, as an asker does for as long as a gap stands.
const (
	questionRate, questionBurst             = 300, 600
	askerQuestionRate, askerQuestionBurst   = 100, 200
	streamQuestionRate, streamQuestionBurst = 1, 4

	// Bytes are limited to Config.ResendBytes a second for one asker, to so many times that for all, each with what it
	// saved in so many seconds.
	allAskers   = 4
	savedBytes  = 4
	eventWeight = 1 << 10 // what an event counts beside its body: it has to be read, sent and delivered

	// maxQuestion bounds the body of what is read as a question.
	maxQuestion = 4 << 10
)

// Why a question is refused.
var (
	errTooManyQuestions = errors.New("too many questions a second")
	errAskerTooGreedy   = errors.New("too many questions a second by this asker")
	errStreamTooOften   = errors.New("asked too often by this asker for this stream")
	errAskerBytes       = errors.New("this asker was sent too many bytes")
	errAllBytes         = errors.New("too many bytes were sent again")
)

// refillLimits says who gets an answer. An asker is the source of a question, which it says itself: so one asker that asks
// too much, for whatever reason, takes nothing from others, while someone who invents askers can use up what all have. What
// bounds that one is who may publish to rocketflow.MissingEventsTopic.
//
// Askers and streams share a fixed number of places by their hash, which nobody else can compute: memory is bounded, and
// nobody is forgotten, and so allowed anew, because others came.
type refillLimits struct {
	questions, bytes *rate.Limiter
	perAsker         int // bytes a second

	mu     sync.Mutex
	seed   maphash.Seed
	askers [4096]*askerLimits
	pairs  [8192]*rate.Limiter // an asker and a stream
}

type askerLimits struct{ questions, bytes *rate.Limiter }

func newResendLimits(perAsker int) *refillLimits {
	all := allAskers * perAsker
	return &refillLimits{
		questions: rate.NewLimiter(questionRate, questionBurst), bytes: rate.NewLimiter(rate.Limit(all), savedBytes*all),
		perAsker: perAsker, seed: maphash.MakeSeed(),
	}
}

// allow takes a question's share, or says why it is refused.
func (l *refillLimits) allow(now time.Time, asker string, s rocketflow.Stream) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, pair := l.asker(asker), l.pair(asker, s)
	switch {
	case a.bytes.TokensAt(now) < 1:
		return errAskerBytes
	case !a.questions.AllowN(now, 1): // before the pair's, which it may share with another asker's
		return errAskerTooGreedy
	case !pair.AllowN(now, 1):
		return errStreamTooOften
	case l.bytes.TokensAt(now) < 1:
		return errAllBytes
	case !l.questions.AllowN(now, 1):
		return errTooManyQuestions
	}
	return nil
}

// sent counts an event that was sent to an asker. It never waits: who is in debt gets no answer until it is paid.
func (l *refillLimits) sent(now time.Time, asker string, e rocketflow.Event) {
	n := len(e.Body) + eventWeight
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, limiter := range []*rate.Limiter{l.asker(asker).bytes, l.bytes} {
		for rest := n; rest > 0; rest -= limiter.Burst() {
			limiter.ReserveN(now, min(rest, limiter.Burst()))
		}
	}
}

func (l *refillLimits) asker(asker string) *askerLimits {
	place := &l.askers[maphash.String(l.seed, asker)%uint64(len(l.askers))]
	if *place == nil {
		*place = &askerLimits{
			rate.NewLimiter(askerQuestionRate, askerQuestionBurst), rate.NewLimiter(rate.Limit(l.perAsker), savedBytes*l.perAsker),
		}
	}
	return *place
}

func (l *refillLimits) pair(asker string, s rocketflow.Stream) *rate.Limiter {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, text := range []string{asker, s.Source, s.Topic, s.Subject} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	place := &l.pairs[h.Sum64()%uint64(len(l.pairs))]
	if *place == nil {
		*place = rate.NewLimiter(streamQuestionRate, streamQuestionBurst)
	}
	return *place
}
