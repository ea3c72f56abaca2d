package rocketflowtest_test

import (
	"os"
	"testing"

	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// childVariable names the part that a child process of TestRaceDetector plays.
const childVariable = "ROCKETFLOWTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "unprepared" {
		rocketflowtest.SuppressClientRaces()
	}
	m.Run()
}
