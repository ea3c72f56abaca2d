// Command order runs the order service. Its settings are environment variables; see examples/README.md.
package main

import (
	"os"

	"github.com/rocketflow/rocketflow/examples/order"
)

func main() {
	os.Exit(order.Main(os.Args[1:], os.Stderr))
}
