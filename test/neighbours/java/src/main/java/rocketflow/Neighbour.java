package rocketflow;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A client in Java that does what its standard input says, a JSON object a line, and writes a JSON object for each command and
 * each message that a listener gets. The first argument is the address of the name server.
 */
public final class Neighbour {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String INSTANCE = "neighbour"; // one client for all: heartbeats of a consumer announce the producers

    private final String nameServer;
    private final PrintStream out;
    private final Map<String, DefaultMQProducer> producers = new HashMap<>();
    private final Map<String, DefaultMQPushConsumer> consumers = new HashMap<>();
    private TransactionMQProducer transactions;

    private Neighbour(String nameServer, PrintStream out) {
        this.nameServer = nameServer;
        this.out = out;
    }

    public static void main(String[] args) throws IOException {
        PrintStream out = System.out;
        System.setOut(System.err); // logs
        new Neighbour(args[0], out).run(new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
        System.exit(0); // the client's threads go on
    }

    private void run(BufferedReader in) throws IOException {
        for (String line; (line = in.readLine()) != null; ) {
            JsonNode command = JSON.readTree(line);
            ObjectNode answer = JSON.createObjectNode().put("done", command.get("number").asInt());
            try {
                switch (command.get("op").asText()) {
                    case "listen" -> listen(command);
                    case "stop" -> consumers.remove(command.get("group").asText()).shutdown();
                    case "send" -> answer.put("ids", send(command));
                    default -> throw new IllegalArgumentException("no such command");
                }
            } catch (Exception e) {
                answer.put("error", e.toString());
            }
            write(answer);
        }
    }

    private synchronized void write(ObjectNode object) throws IOException {
        out.println(JSON.writeValueAsString(object));
        out.flush();
    }

    private void listen(JsonNode c) throws Exception {
        String group = c.get("group").asText();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName(INSTANCE);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(c.get("topic").asText(), "*");
        String kind = c.get("kind").asText();
        switch (kind) {
            case "plain", "cloudevents" -> consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
                    heard(group, kind, messages) ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER);
            case "ordered" -> consumer.registerMessageListener((MessageListenerOrderly) (messages, context) ->
                    heard(group, kind, messages) ? ConsumeOrderlyStatus.SUCCESS : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT);
            default -> throw new IllegalArgumentException("no such kind");
        }
        consumer.start();
        consumers.put(group, consumer);
    }

    private boolean heard(String group, String kind, List<MessageExt> messages) {
        try {
            for (MessageExt m : messages) {
                ObjectNode heard = JSON.createObjectNode().put("group", group).put("id", m.getMsgId()).put("queue", m.getQueueId());
                heard.put("body", m.getBody());
                heard.set("properties", JSON.valueToTree(m.getProperties()));
                if (kind.equals("cloudevents")) {
                    CloudEvent e = Binding.read(m);
                    ObjectNode attributes = JSON.createObjectNode();
                    for (String name : e.getAttributeNames()) {
                        attributes.put(name, String.valueOf(e.getAttribute(name)));
                    }
                    for (String name : e.getExtensionNames()) {
                        attributes.put(name, String.valueOf(e.getExtension(name)));
                    }
                    heard.set("attributes", attributes);
                    heard.put("data", e.getData() == null ? null : e.getData().toBytes());
                }
                write(heard);
            }
            return true;
        } catch (Exception e) {
            e.printStackTrace();
            try {
                write(JSON.createObjectNode().put("group", group).put("error", e.toString()));
            } catch (IOException lost) {
                lost.printStackTrace();
            }
            return false;
        }
    }

    /** Sends messages, in a batch or one after the other, and returns the ids that the client gave them. */
    private String send(JsonNode c) throws Exception {
        List<Message> messages = new ArrayList<>();
        for (JsonNode m : c.get("messages")) {
            messages.add(message(m));
        }
        String compression = c.path("compression").asText();
        List<String> ids = new ArrayList<>();
        if (c.path("batch").asBoolean()) {
            ids.add(stored(producer(compression).send(messages)));
        } else if (c.has("transaction")) {
            LocalTransactionState state = LocalTransactionState.valueOf(c.get("transaction").asText());
            for (Message m : messages) {
                ids.add(stored(transactions().sendMessageInTransaction(m, state)));
            }
        } else if (c.has("queue")) {
            for (Message m : messages) {
                ids.add(stored(producer(compression).send(m, (queues, message, i) -> queues.get((Integer) i), c.get("queue").asInt())));
            }
        } else {
            for (Message m : messages) {
                ids.add(stored(producer(compression).send(m)));
            }
        }
        return String.join(",", ids);
    }

    private static String stored(SendResult result) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException(result.toString());
        }
        return result.getMsgId();
    }

    private static Message message(JsonNode c) throws IOException {
        Message m;
        if (c.has("event")) {
            CloudEvent event = event(c.get("event"), c.get("body"));
            Binding.Writer writer = new Binding.Writer(c.get("topic").asText());
            m = c.path("structured").asBoolean()
                    ? writer.writeStructured(event, "application/cloudevents+json")
                    : writer.writeBinary(event);
        } else {
            m = new Message(c.get("topic").asText(), c.get("body").binaryValue());
        }
        if (c.has("tag")) {
            m.setTags(c.get("tag").asText());
        }
        if (c.has("keys")) {
            m.setKeys(c.get("keys").asText());
        }
        if (c.has("level")) {
            m.setDelayTimeLevel(c.get("level").asInt());
        }
        if (c.has("delay")) {
            m.setDelayTimeMs(c.get("delay").asLong());
        }
        c.path("properties").fields().forEachRemaining(p -> m.putUserProperty(p.getKey(), p.getValue().asText()));
        return m;
    }

    private static CloudEvent event(JsonNode attributes, JsonNode body) throws IOException {
        CloudEventBuilder b = CloudEventBuilder.v1();
        attributes.fields().forEachRemaining(a -> {
            String value = a.getValue().asText();
            switch (a.getKey()) {
                case "id" -> b.withId(value);
                case "source" -> b.withSource(URI.create(value));
                case "type" -> b.withType(value);
                case "subject" -> b.withSubject(value);
                case "time" -> b.withTime(OffsetDateTime.parse(value));
                case "datacontenttype" -> b.withDataContentType(value);
                case "dataschema" -> b.withDataSchema(URI.create(value));
                default -> b.withExtension(a.getKey(), value);
            }
        });
        if (body != null) {
            b.withData(body.binaryValue());
        }
        return b.build();
    }

    /** Returns the producer that compresses all bodies by a method, or none if it is empty. */
    private DefaultMQProducer producer(String compression) throws Exception {
        DefaultMQProducer p = producers.get(compression);
        if (p == null) {
            p = new DefaultMQProducer("neighbour-" + compression);
            p.setNamesrvAddr(nameServer);
            p.setInstanceName(INSTANCE);
            if (compression.isEmpty()) {
                p.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
            } else {
                p.setCompressMsgBodyOverHowmuch(1);
                p.setCompressType(CompressionType.of(compression));
            }
            p.start();
            producers.put(compression, p);
        }
        return p;
    }

    private TransactionMQProducer transactions() throws Exception {
        if (transactions == null) {
            transactions = new TransactionMQProducer("neighbour-transactions");
            transactions.setNamesrvAddr(nameServer);
            transactions.setInstanceName(INSTANCE);
            transactions.setTransactionListener(new TransactionListener() {
                @Override
                public LocalTransactionState executeLocalTransaction(Message m, Object state) {
                    return (LocalTransactionState) state;
                }

                @Override
                public LocalTransactionState checkLocalTransaction(MessageExt m) {
                    return LocalTransactionState.COMMIT_MESSAGE;
                }
            });
            transactions.start();
        }
        return transactions;
    }
}
