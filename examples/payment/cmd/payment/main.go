// Command payment runs the payment service. Its settings are environment variables; see examples/README.md.
package main

import (
	"os"

	"github.com/rocketflow/rocketflow/examples/payment"
)

func main() {
	os.Exit(payment.Main(os.Args[1:], os.Stderr))
}
