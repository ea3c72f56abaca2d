package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// topicsFlags are the flags of the command topics.
type topicsFlags struct {
	databaseFlags
	service, namespace, profile, format string
	topics, consumers                   []string
}

func newTopicsCommand() *cobra.Command {
	var f topicsFlags
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Print the topics and consumer groups that a service needs",
		Long: `Prints the topics and consumer groups that must exist for a service, rocketflow's own included, for those who create
them: behind a proxy, or in a cloud, a service can't. Names, types and queues are as the profile of the RocketMQ wants
them; a name that it doesn't allow is an error.

With --service, the service uses the topics and consumers that the flags name. Otherwise they are read from its tables,
where they are once it has run; events without order that it only publishes leave no trace there, so name their topics.
A service prints its own by App.Requirements.

The commands of --format mqadmin read the address of the name server from $NAMESRV and the cluster's name from $CLUSTER.`,
		Example: `  rocketflow topics --service shop --topic orders:8 --topic alarms:2:DELAY --consumer billing --profile proxy5
  rocketflow topics --schema shop_rocketflow --format mqadmin`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.requirements(cmd.Context())
			if err != nil {
				return err
			}
			return r.Write(cmd.OutOrStdout(), rocketmq.RequirementsFormat(f.format))
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.service, "service", "", "name of the service (default the owner of the schema)")
	cmd.Flags().StringArrayVar(&f.topics, "topic", nil, "topic that the service publishes to or reads, as name[:queues[:type]]; may be repeated")
	cmd.Flags().StringArrayVar(&f.consumers, "consumer", nil, "consumer of the service; may be repeated")
	cmd.Flags().StringVar(&f.profile, "profile", "", "kind of RocketMQ: "+profileNames())
	cmd.Flags().StringVar(&f.namespace, "namespace", "", "prefix of all names: rocketmq.Config.Namespace")
	cmd.Flags().StringVar(&f.format, "format", string(rocketmq.FormatList), "list, mqadmin or json")
	return cmd
}

func profileNames() string {
	var names []string
	for _, p := range rocketmq.Profiles() {
		names = append(names, p.String())
	}
	return strings.Join(names, "|")
}

// requirements returns what the flags name, and what the tables name unless a service is named.
func (f *topicsFlags) requirements(ctx context.Context) (rocketmq.Requirements, error) {
	var none rocketmq.Requirements
	switch rocketmq.RequirementsFormat(f.format) {
	case rocketmq.FormatList, rocketmq.FormatMqadmin, rocketmq.FormatJSON:
	default:
		return none, usagef("--format %q: want list, mqadmin or json", f.format)
	}
	profile, err := rocketmq.ParseProfile(f.profile)
	if err != nil {
		return none, usagef("--profile: %w", err)
	}
	topics, consumers := []broker.Topic{{Name: rocketflow.MissingEventsTopic, Queues: 2}}, slices.Clone(f.consumers)
	for _, s := range f.topics {
		t, err := parseTopic(s)
		if err != nil {
			return none, err
		}
		topics = append(topics, t)
	}
	service := f.service
	if service == "" {
		usage, err := f.usage(ctx)
		if err != nil {
			return none, err
		}
		service = usage.Service
		consumers = append(consumers, usage.Consumers...)
		for _, name := range usage.Topics {
			topics = append(topics, broker.Topic{Name: name})
		}
	}
	groups := outbox.Config{Source: service}.ConsumerGroups(profile.RefusesHalfMessages() == nil)
	for _, c := range consumers {
		groups = append(groups, handlers.Config{Source: service}.Group(c))
	}
	return rocketmq.Config{Profile: profile, Namespace: f.namespace}.Requirements(topics, groups)
}

// usage reads from the tables what the service has used.
func (f *topicsFlags) usage(ctx context.Context) (*operate.Usage, error) {
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	o, err := operate.New(operate.Config{Pool: pool, Schema: f.schema})
	if err != nil {
		return nil, err
	}
	usage, err := o.Usage(ctx)
	if err == nil && usage.Service == "" {
		err = fmt.Errorf("schema %s belongs to no service yet: name the service by --service, and what it uses by --topic and --consumer", f.schema)
	}
	return usage, err
}

// parseTopic parses name[:queues[:type]].
func parseTopic(s string) (broker.Topic, error) {
	bad := usagef("--topic %q: want name[:queues[:type]], with a type of NORMAL, FIFO, DELAY or TRANSACTION", s)
	parts := strings.Split(s, ":")
	t := broker.Topic{Name: parts[0]}
	if t.Name == "" || len(parts) > 3 {
		return t, bad
	}
	if len(parts) > 1 {
		n, err := strconv.ParseUint(parts[1], 10, 14)
		if err != nil || n == 0 {
			return t, bad
		}
		t.Queues = int(n)
	}
	if len(parts) > 2 {
		switch t.Kind = broker.TopicKind(strings.ToUpper(parts[2])); t.Kind {
		case broker.Normal, broker.FIFO, broker.Delay, broker.Transaction:
		default:
			return t, bad
		}
	}
	return t, nil
}
