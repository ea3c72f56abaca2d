package neighbours

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

// javaClient is a client in Java, in a process of its own: see java/src/main/java/rocketflow/Neighbour.java. Its methods are safe
// for concurrent use.
type javaClient struct {
	log *lockedBuffer

	// sending is held while a command is written, which waits while the process executes another. It isn't mu: what the process
	// writes meanwhile has to be read, or it waits for its reader and executes nothing.
	sending sync.Mutex
	stdin   io.Writer

	mu      sync.Mutex
	number  int
	answers map[int]chan javaAnswer
	heard   map[string]chan heard
	ended   bool
}

type javaAnswer struct {
	Done  int    `json:"done"`
	IDs   string `json:"ids"`
	Error string `json:"error"`
}

// heard is what a listener in Java gets of a message, or why it can't read it.
type heard struct {
	Group      string            `json:"group"`
	Error      string            `json:"error"`
	ID         string            `json:"id"`
	Queue      int               `json:"queue"`
	Body       []byte            `json:"body"`
	Properties map[string]string `json:"properties"`
	Attributes map[string]string `json:"attributes"` // of a CloudEvent
	Data       []byte            `json:"data"`       // of a CloudEvent
}

// startJava builds the client and starts it. Without Maven or a JDK the test is skipped, but in CI it fails.
func startJava(t *testing.T, nameServer string) *javaClient {
	t.Helper()
	java, classPath, err := devstack.BuildMaven(t.Context(), "java")
	if err != nil {
		if os.Getenv("CI") != "true" && !canBuild() {
			t.Skipf("not run with Java: %v", err)
		}
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	cmd := exec.Command(java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Drocketmq.log.root.level=WARN",
		"-Drocketmq.client.logRoot="+t.TempDir(), "-cp", classPath, "rocketflow.Neighbour", nameServer)
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j, read := newJavaClient(stdin, stdout, log)
	t.Cleanup(func() {
		_ = stdin.Close() // it ends
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the client in Java wrote:\n%s", log)
		}
	})
	return j
}

// newJavaClient returns a client that writes to the standard input of a process and reads its standard output, and a channel that is closed
// when that has ended.
func newJavaClient(stdin io.Writer, stdout io.Reader, log *lockedBuffer) (*javaClient, <-chan struct{}) {
	j := &javaClient{stdin: stdin, log: log, answers: map[int]chan javaAnswer{}, heard: map[string]chan heard{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			j.dispatch(lines.Bytes())
		}
		j.end()
	}()
	return j, read
}

// TestMessagesAreReadWhileACommandIsWritten has a process that reads a command only when its messages were read.
func TestMessagesAreReadWhileACommandIsWritten(t *testing.T) {
	t.Parallel()
	stdin, commands := io.Pipe() // without a buffer
	messages, stdout := io.Pipe()
	j, read := newJavaClient(commands, messages, &lockedBuffer{})
	heardOf := make(chan heard, 10)
	j.heard["group"] = heardOf
	go func() {
		_, _ = stdin.Read(make([]byte, 1))
		for range cap(heardOf) {
			_, _ = io.WriteString(stdout, `{"group":"group"}`+"\n")
		}
		_, _ = bufio.NewReader(stdin).ReadString('\n')
		_, _ = io.WriteString(stdout, `{"done":1,"ids":"a,b"}`+"\n")
		_ = stdout.Close()
	}()
	if ids := j.do(t, map[string]any{"op": "send"}); len(ids) != 2 || len(heardOf) != cap(heardOf) {
		t.Errorf("got ids %q and %d messages", ids, len(heardOf))
	}
	<-read
}

// canBuild reports whether Maven and a compiler are there.
func canBuild() bool {
	_, noMaven := exec.LookPath("mvn")
	compilers, _ := filepath.Glob("/usr/lib/jvm/*/bin/javac")
	_, noCompiler := exec.LookPath("javac")
	return noMaven == nil && (noCompiler == nil || len(compilers) > 0)
}

func (j *javaClient) dispatch(line []byte) {
	var answer javaAnswer
	var message heard
	if err := errors.Join(json.Unmarshal(line, &answer), json.Unmarshal(line, &message)); err != nil {
		_, _ = j.log.Write(line)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if message.Group != "" {
		j.heard[message.Group] <- message
		return
	}
	j.answers[answer.Done] <- answer
	delete(j.answers, answer.Done)
}

// end fails commands that have no answer.
func (j *javaClient) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	for _, c := range j.answers {
		c <- javaAnswer{Error: "the process has ended"}
	}
}

// do has the client execute a command, and returns the ids of messages that it has sent.
func (j *javaClient) do(t *testing.T, command map[string]any) []string {
	t.Helper()
	answer := make(chan javaAnswer, 1)
	j.mu.Lock()
	j.number++
	command["number"] = j.number
	line, err := json.Marshal(command)
	if j.ended {
		err = errors.Join(err, errors.New("the process has ended"))
	}
	if err == nil {
		j.answers[j.number] = answer
	}
	j.mu.Unlock()
	if err == nil {
		j.sending.Lock()
		_, err = j.stdin.Write(append(line, '\n'))
		j.sending.Unlock()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, j.log)
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			t.Fatalf("%s: %s\n%s", line, a.Error, j.log)
		}
		return strings.Split(a.IDs, ",")
	case <-time.After(time.Minute):
		t.Fatalf("%s: no answer\n%s", line, j.log)
		panic("unreachable")
	}
}

// listen starts a consumer of a kind and returns a channel of what it gets.
func (j *javaClient) listen(t *testing.T, kind, group, topic string) <-chan heard {
	t.Helper()
	messages := make(chan heard, 10_000)
	j.mu.Lock()
	j.heard[group] = messages
	j.mu.Unlock()
	j.do(t, map[string]any{"op": "listen", "kind": kind, "group": group, "topic": topic})
	return messages
}

// lockedBuffer is a buffer that goroutines can share.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
