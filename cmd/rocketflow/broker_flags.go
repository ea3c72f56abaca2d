package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// brokerFlags are the flags of commands that send to a broker or ask it.
type brokerFlags struct {
	nameServers, namespace string
}

func (f *brokerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.nameServers, "namesrv", "", "name servers of RocketMQ, host:port;host:port (default $ROCKETMQ_NAMESRV)")
	cmd.Flags().StringVar(&f.namespace, "namespace", "", "namespace of the topics (default $ROCKETMQ_NAMESPACE)")
}

// named reports whether a broker is configured, by a flag or the environment.
func (f *brokerFlags) named() bool { return f.servers() != "" }

// servers returns the name servers, as a flag or the environment has them.
func (f *brokerFlags) servers() string { return cmp.Or(f.nameServers, os.Getenv("ROCKETMQ_NAMESRV")) }

// space returns the namespace, as a flag or the environment has it.
func (f *brokerFlags) space() string { return cmp.Or(f.namespace, os.Getenv("ROCKETMQ_NAMESPACE")) }

// open connects to the broker. The caller closes the client.
func (f *brokerFlags) open(ctx context.Context) (*rocketmq.Client, error) {
	config, err := app.TLSFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	profile, err := app.ProfileFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	transport, err := app.TransportFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: strings.Split(f.servers(), ";"),
		Namespace:   f.space(), Service: "rocketflow-cli",
		AccessKey: os.Getenv("ROCKETMQ_ACCESS_KEY"), SecretKey: os.Getenv("ROCKETMQ_SECRET_KEY"), TLS: config, Profile: profile, Transport: transport,
	})
	if err != nil {
		return nil, fmt.Errorf("connect to RocketMQ: %w", err)
	}
	return client, nil
}
