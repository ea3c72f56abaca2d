package rocketmq

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Profile is the kind of RocketMQ that a Client connects to. It decides how the client does what these differ in, and what it refuses.
// [Profile.Facts] returns what is known of each kind, and from where. The zero value is Apache5.
type Profile string

// The kinds of RocketMQ. docs/clouds.md compares them.
const (
	// Apache5 is Apache RocketMQ 5: name servers and brokers, without a proxy. Brokers of version 4 are recognized as well.
	Apache5 Profile = "apache5"
	// Apache4 is Apache RocketMQ 4.9: name servers and brokers.
	Apache4 Profile = "apache4"
	// Proxy5 is RocketMQ's own proxy of version 5, on its remoting port. Config.NameServers are the addresses of the proxies.
	Proxy5 Profile = "proxy5"
	// ApsaraMQ5 is Alibaba Cloud's ApsaraMQ for RocketMQ, version 5.
	ApsaraMQ5 Profile = "apsaramq5"
	// HuaweiDMS4 is Huawei Cloud's Distributed Message Service for RocketMQ, version 4.8.
	HuaweiDMS4 Profile = "huaweidms4"
	// HuaweiDMS5 is Huawei Cloud's Distributed Message Service for RocketMQ, version 5.
	HuaweiDMS5 Profile = "huaweidms5"
	// TencentTDMQ is Tencent Cloud's TDMQ for RocketMQ, versions 4 and 5.
	TencentTDMQ Profile = "tencenttdmq"
)

// Profiles returns all profiles, Apache's first.
func Profiles() []Profile {
	return []Profile{Apache5, Apache4, Proxy5, ApsaraMQ5, HuaweiDMS4, HuaweiDMS5, TencentTDMQ}
}

// ParseProfile returns the profile of a name, which may have upper-case letters: Proxy5 or proxy5. The empty name is Apache5.
func ParseProfile(name string) (Profile, error) {
	p := Profile(strings.ToLower(name)).orDefault()
	if _, ok := facts[p]; !ok {
		return "", fmt.Errorf("unknown profile %s: want one of %v", printable.Quote(name, printable.Name), Profiles())
	}
	return p, nil
}

// String returns the profile's name.
func (p Profile) String() string { return string(p.orDefault()) }

func (p Profile) orDefault() Profile {
	if p == "" {
		return Apache5
	}
	return p
}

// Facts returns what is known of a kind of RocketMQ. The facts of an unknown profile are those of Apache5.
func (p Profile) Facts() Facts {
	if f, ok := facts[p.orDefault()]; ok {
		return f
	}
	return facts[Apache5]
}

// Facts is what a kind of RocketMQ can do. Routes of topics are not among it: every kind returns them, because every client needs them.
type Facts struct {
	// ListsBrokers says whether the cluster can be asked for its brokers (request code 106). Otherwise the client finds brokers in the
	// routes of topics, and signs also what it asks the name servers, which may be proxies.
	ListsBrokers Fact[bool]
	// NeedsBrokerName says whether requests that don't name the broker are refused: those of rocketmq-client-go.
	NeedsBrokerName Fact[bool]
	// CreatesTopics says whether a client may create topics (request code 17).
	CreatesTopics Fact[bool]
	// CreatesGroups says whether a consumer group comes into being by its first consumer.
	CreatesGroups Fact[bool]
	// TopicTypes says whether a topic may have a type when it is created.
	TopicTypes Fact[bool]
	// TypesAreChecked says whether a topic takes messages of one type only: plain ones, ordered ones, half messages or timers. Then every
	// topic is of type NORMAL, and neither half messages nor timers are used, because what the outbox and the sweep send again is plain.
	TypesAreChecked Fact[bool]
	// ShardingKeyIsAType says whether the property SHARDING_KEY makes a message an ordered one. Then ShardingKeyProperty is sent instead.
	ShardingKeyIsAType Fact[bool]
	// HalfMessages says whether there are half messages with check-backs.
	HalfMessages Fact[bool]
	// ConfirmsEnds says whether the response to the end of a half message says what became of it.
	ConfirmsEnds Fact[bool]
	// BeginsAtNewest says whether a new group can be made to begin anywhere but at the oldest message.
	BeginsAtNewest Fact[bool]
	// Batches says whether a request can have several messages.
	Batches Fact[bool]
	// MaxBody is the size of the largest body in bytes. 0: the brokers' settings decide.
	MaxBody Fact[int]
	// MaxSpecialBody is MaxBody of half messages and timers.
	MaxSpecialBody Fact[int]
	// Timers is how scheduled messages are sent.
	Timers Fact[TimerFormat]
	// Horizon is how far ahead a timer may be.
	Horizon Fact[time.Duration]
	// Precision is how late a timer may be.
	Precision Fact[time.Duration]
	// TopicNames and GroupNames are the rules of names, with the namespace if there is one.
	TopicNames, GroupNames Fact[NameRule]
}

// Fact is one thing that is known, and from where.
type Fact[T any] struct {
	Is     T      // what is known
	Source Source // from where
}

// Source says from where something is known.
type Source struct {
	Basis Basis  // how reliable it is
	Text  string // on what it was tried, or the document's title and address, or why it is assumed
}

// String returns the basis and the text.
func (s Source) String() string { return string(s.Basis) + ": " + s.Text }

// Basis is how reliable a Source is.
type Basis string

// The bases of facts.
const (
	Tried      Basis = "tried"      // on a real one
	Documented Basis = "documented" // by the vendor, or read in the source code
	Assumed    Basis = "assumed"    // the choice that works if the opposite is true as well
)

// TimerFormat is by which properties scheduled messages are sent and cancelled.
type TimerFormat struct {
	Deliver string // property with the instant; empty: there are no timers
	Cancel  string // property of a message that cancels a timer; empty: timers can't be cancelled
}

// NameRule is which names are allowed.
type NameRule struct {
	Min, Max   int    // length in bytes
	Characters string // the allowed ones, as between the brackets of a regular expression
}

// Check returns why a name isn't allowed, or nil.
func (r NameRule) Check(name string) error {
	if len(name) < r.Min || len(name) > r.Max {
		return fmt.Errorf("%s has %d bytes, want %d to %d", printable.Quote(name, printable.Name), len(name), r.Min, r.Max)
	}
	if !regexp.MustCompile(`^[` + r.Characters + `]*$`).MatchString(name) {
		return fmt.Errorf("%s has characters other than %s", printable.Quote(name, printable.Name), r.Characters)
	}
	return nil
}

// String returns the rule in words.
func (r NameRule) String() string { return fmt.Sprintf("%d to %d of %s", r.Min, r.Max, r.Characters) }

// ShardingKeyProperty is the property with a message's sharding key where SHARDING_KEY would give the message another type: see
// Facts.ShardingKeyIsAType. Consumers of every profile read both.
const ShardingKeyProperty = broker.ShardingKeyProperty

// shardingKeyProperty returns the property with the sharding key of a message that is sent.
func (p Profile) shardingKeyProperty() string {
	if p.Facts().ShardingKeyIsAType.Is {
		return ShardingKeyProperty
	}
	return primitive.PropertyShardingKey
}

// limitation is what a profile can't do: the fact that prevents it.
type limitation struct {
	profile Profile
	reason  string
	source  Source
}

// Error returns the profile, the reason and the source.
func (l *limitation) Error() string {
	return fmt.Sprintf("profile %s: %s (%s)", l.profile, l.reason, l.source)
}

// refuse returns an error if a fact is not as it is needed, else nil.
func refuse[T comparable](p Profile, f Fact[T], unwanted T, reason string) error {
	if f.Is == unwanted {
		return &limitation{p, reason, f.Source}
	}
	return nil
}

// firstError returns the first error that isn't nil. (errors.Join would repeat what one reason explains.)
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// RefusesHalfMessages returns why half messages aren't used with the profile, or nil if they are. The outbox then sends all events after
// their commit.
func (p Profile) RefusesHalfMessages() error {
	f := p.Facts()
	return firstError(
		refuse(p, f.HalfMessages, false, "it has no half messages"),
		refuse(p, f.ConfirmsEnds, false, "it confirms the ends of half messages without carrying them out"),
		refuse(p, f.TypesAreChecked, true, "a topic that takes half messages takes no others, but an event whose half message is lost is sent again as a plain message"),
	)
}

// RefusesTimers returns why scheduled messages aren't used with the profile, or nil if they are. Timeouts then fire from Postgres.
func (p Profile) RefusesTimers() error {
	f := p.Facts()
	return firstError(
		refuse(p, f.Timers, TimerFormat{}, "it has no timers for any instant"),
		refuse(p, f.TypesAreChecked, true, "a topic that takes scheduled messages takes no others, but what is due at once or was lost is sent as a plain message"),
	)
}

// RefusesCreatingTopics returns why topics can't be created with the profile, or nil if they can.
func (p Profile) RefusesCreatingTopics() error {
	return refuse(p, p.Facts().CreatesTopics, false, "topics are created by its operators: `rocketflow topics` prints which ones are needed")
}

// RefusesListing returns why the cluster can't be asked for its brokers with the profile, so that nobody can ask these for their settings,
// state and members of groups, or nil if it can.
func (p Profile) RefusesListing() error {
	return refuse(p, p.Facts().ListsBrokers, false, "the cluster can't be asked for its brokers")
}

// refusesBegin returns why a new group can't begin anywhere but at the oldest message, or nil if it can.
func (p Profile) refusesBegin(b broker.Begin) error {
	if b.Oldest() {
		return nil
	}
	return refuse(p, p.Facts().BeginsAtNewest, false, "a new group begins at the oldest message")
}

// RefusesTransport returns why a transport can't be used with the profile, or nil if it can.
func (p Profile) RefusesTransport(t Transport) error {
	if t != ClientGo {
		return nil
	}
	return refuse(p, p.Facts().NeedsBrokerName, true, "it refuses requests that don't name the broker, as those of rocketmq-client-go: want Own")
}

// checkTopic returns why a topic on the wire can't have this name, or nil. The error matches broker.ErrIllegal.
func (p Profile) checkTopic(name string) error {
	return checkName(p, "topic", p.Facts().TopicNames, name)
}

// checkGroup is checkTopic for consumer groups and producer groups.
func (p Profile) checkGroup(name string) error {
	return checkName(p, "group", p.Facts().GroupNames, name)
}

func checkName(p Profile, kind string, rule Fact[NameRule], name string) error {
	if err := rule.Is.Check(name); err != nil {
		return fmt.Errorf("%w: name of a %s: %w (profile %s, %s)", broker.ErrIllegal, kind, err, p, rule.Source)
	}
	return nil
}

// bodyKind is which limit holds for a body.
type bodyKind bool

const (
	plainBody   bodyKind = false
	specialBody bodyKind = true // of a half message or a timer
)

// checkBody returns an error that matches broker.ErrTooLarge if a body is larger than the profile's limit.
func (p Profile) checkBody(kind bodyKind, size int) error {
	limit := p.Facts().MaxBody
	if kind == specialBody {
		limit = p.Facts().MaxSpecialBody
	}
	if limit.Is > 0 && size > limit.Is {
		return fmt.Errorf("%w: body of %d bytes, want at most %d (profile %s, %s)", broker.ErrTooLarge, size, limit.Is, p, limit.Source)
	}
	return nil
}

// validateProfile checks the profile and what it decides about other fields.
func (c Config) validateProfile() error {
	field := func(name string, err error) error { return valid.Field("rocketmq.Config."+name, err.Error()) }
	if _, known := facts[c.Profile]; !known {
		return valid.Fieldf("rocketmq.Config.Profile", "%q: want one of %v", string(c.Profile), slices.Sorted(maps.Keys(facts)))
	}
	if err := c.Profile.RefusesTransport(c.Transport); err != nil {
		return field("Transport", err)
	}
	if c.Namespace != "" {
		if err := c.Profile.checkTopic(c.wireName("topic")); err != nil {
			return field("Namespace", err)
		}
	}
	if c.TimerHorizon == 0 {
		return nil // the profile's
	}
	if err := c.Profile.RefusesTimers(); err != nil {
		return field("TimerHorizon", err)
	}
	if h := c.Profile.Facts().Horizon; h.Is > 0 && c.Profile != Apache5 && c.TimerHorizon > h.Is {
		return valid.Fieldf("rocketmq.Config.TimerHorizon", "%v: want at most %v (profile %s, %s)", c.TimerHorizon, h.Is, c.Profile, h.Source)
	}
	return nil
}
