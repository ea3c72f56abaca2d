package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of rocketflow, Go, and the RocketMQ that dev --broker=rocketmq starts",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, commit, goVersion := "(unknown)", "", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				version, goVersion = info.Main.Version, info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						commit = " commit " + s.Value
					}
				}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "rocketflow %s%s\n%s\nRocketMQ %s\n", version, commit, goVersion, devstack.RocketMQVersion)
			return err
		},
	}
}
