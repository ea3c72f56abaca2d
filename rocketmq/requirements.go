package rocketmq

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/rocketflow/rocketflow/broker"
)

// Requirements are the topics and the consumer groups that a service needs, by their names on the wire. Where clients don't create them
// (see Facts.CreatesTopics and Facts.CreatesGroups) an operator of the RocketMQ does. `rocketflow topics` prints them.
type Requirements struct {
	Profile Profile         `json:"profile"` // whose rules the names follow
	Topics  []RequiredTopic `json:"topics"`  // sorted by name
	Groups  []string        `json:"groups"`  // sorted
}

// RequiredTopic is a topic that a service needs.
type RequiredTopic struct {
	Name   string           `json:"name"`   // on the wire: with the namespace
	Kind   broker.TopicKind `json:"type"`   // empty where topics have no type
	Queues int              `json:"queues"` // on each broker
}

// Requirements returns topics and groups as the profile and the namespace require them, sorted and each once. The error matches
// broker.ErrIllegal and lists the names that the profile doesn't allow.
func (c Config) Requirements(topics []broker.Topic, groups []string) (Requirements, error) {
	c = c.withDefaults()
	facts := c.Profile.Facts()
	r := Requirements{Profile: c.Profile}
	var errs []error
	for _, t := range topics {
		required := RequiredTopic{Name: c.wireName(t.Name), Queues: cmp.Or(t.Queues, defaultQueues)}
		switch {
		case facts.TypesAreChecked.Is:
			required.Kind = broker.Normal
		case facts.TopicTypes.Is:
			required.Kind = cmp.Or(t.Kind, broker.Normal)
		}
		if slices.ContainsFunc(r.Topics, func(o RequiredTopic) bool { return o.Name == required.Name }) {
			continue
		}
		errs = append(errs, c.Profile.checkTopic(required.Name))
		r.Topics = append(r.Topics, required)
	}
	for _, group := range groups {
		group = c.wireName(group)
		errs = append(errs, c.Profile.checkGroup(group))
		r.Groups = append(r.Groups, group)
	}
	slices.SortFunc(r.Topics, func(a, b RequiredTopic) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(r.Groups)
	r.Groups = slices.Compact(r.Groups)
	return r, errors.Join(errs...)
}

// RequirementsFormat is how Requirements are printed.
type RequirementsFormat string

// The formats of Requirements.
const (
	FormatList    RequirementsFormat = "list"    // a line for each topic and group
	FormatMqadmin RequirementsFormat = "mqadmin" // commands of RocketMQ's own tool, for a shell
	FormatJSON    RequirementsFormat = "json"
)

// Write prints the requirements. The commands of FormatMqadmin read the name server's address from the shell variable NAMESRV, and the
// cluster's name from CLUSTER.
func (r Requirements) Write(w io.Writer, format RequirementsFormat) error {
	switch format {
	case FormatList:
		return r.writeList(w)
	case FormatMqadmin:
		return r.writeMqadmin(w)
	case FormatJSON:
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return fmt.Errorf("unknown format %q: want %s, %s or %s", format, FormatList, FormatMqadmin, FormatJSON)
}

func (r Requirements) writeList(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, topic := range r.Topics {
		queues := "queues"
		if topic.Queues == 1 {
			queues = "queue"
		}
		fmt.Fprintf(t, "topic\t%s\t%d %s\t%s\n", topic.Name, topic.Queues, queues, topic.Kind)
	}
	for _, group := range r.Groups {
		fmt.Fprintf(t, "group\t%s\t\t\n", group)
	}
	return t.Flush()
}

func (r Requirements) writeMqadmin(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# NAMESRV is the address of the name server, not of a proxy; CLUSTER is the name of the cluster, such as DefaultCluster.\n")
	for _, t := range r.Topics {
		fmt.Fprintf(&b, `mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t '%s' -r %d -w %d`, t.Name, t.Queues, t.Queues)
		if t.Kind != "" {
			fmt.Fprintf(&b, " -a +message.type=%s", t.Kind)
		}
		b.WriteByte('\n')
	}
	for _, group := range r.Groups {
		fmt.Fprintf(&b, `mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g '%s'`+"\n", group)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
