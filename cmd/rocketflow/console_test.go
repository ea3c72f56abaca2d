package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// lockedBuffer is written and read at the same time.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// The console serves this machine: without flags it shows no bodies and changes nothing, and pages of other names are refused.
func TestConsole(t *testing.T) {
	t.Parallel()
	s := testconsole.New(t, "shop")
	for flags, allowed := range map[string]bool{"": false, " --bodies --actions": true} {
		ctx, cancel := context.WithCancel(t.Context())
		var stdout, stderr lockedBuffer
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, strings.Fields("console --listen 127.0.0.1:0 --database "+s.Pool.Config().ConnString()+" --schema "+s.Schema+flags), &stdout, &stderr)
		}()
		address := ""
		poll.Within(t, 20*time.Second, "its address", func() bool {
			if found := regexp.MustCompile(`http://\S+`).FindString(stdout.String()); found != "" {
				address = found
			}
			return address != ""
		})
		client := &http.Client{Transport: &http.Transport{}}
		get := func(page, host string) (int, string) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+page, nil)
			if err != nil {
				t.Fatal(err)
			}
			if host != "" {
				r.Host = host
			}
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			return answer.StatusCode, string(text)
		}
		poll.Within(t, 20*time.Second, "the overview", func() bool {
			status, text := get("", "")
			return status == http.StatusOK && strings.Contains(text, "shop")
		})
		status, text := get("why?id="+s.Poison.String(), "")
		if status != http.StatusOK || strings.Contains(text, testconsole.Secret) != allowed {
			t.Errorf("%q: %d %s", flags, status, text)
		}
		if status, _ := get("act/retry?service="+s.Schema, ""); (status == http.StatusOK) != allowed {
			t.Errorf("%q: the form of an action: %d", flags, status)
		}
		if status, _ := get("", "evil.example"); status != http.StatusMisdirectedRequest {
			t.Errorf("%q: another host: %d", flags, status)
		}
		client.CloseIdleConnections()
		cancel()
		if code := <-ended; code != exitOK || stderr.String() != "" {
			t.Errorf("%q: exit code %d, %s", flags, code, stderr.String())
		}
	}
}

func TestConsoleListensOnLoopback(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"console --listen :8095", "console --listen 0.0.0.0:0", "console --listen 192.0.2.1:80", "console --listen [::]:80", "console --listen x", "console --max-change 0"} {
		if code, _, stderr := runLine(line); code != exitUsage || !strings.Contains(stderr, "--") {
			t.Errorf("%s: %d %s", line, code, stderr)
		}
	}
}
