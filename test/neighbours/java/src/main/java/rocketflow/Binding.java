package rocketflow;

import io.cloudevents.CloudEvent;
import io.cloudevents.CloudEventData;
import io.cloudevents.SpecVersion;
import io.cloudevents.core.data.BytesCloudEventData;
import io.cloudevents.core.format.EventFormat;
import io.cloudevents.core.message.MessageReader;
import io.cloudevents.core.message.MessageWriter;
import io.cloudevents.core.message.impl.BaseGenericBinaryMessageReaderImpl;
import io.cloudevents.core.message.impl.GenericStructuredMessageReader;
import io.cloudevents.core.message.impl.MessageUtils;
import io.cloudevents.rw.CloudEventContextWriter;
import io.cloudevents.rw.CloudEventWriter;
import java.util.Map;
import java.util.function.BiConsumer;
import org.apache.rocketmq.common.message.Message;

/**
 * CloudEvents in messages of the remoting client, with the names of CloudEvents' binding for RocketMQ. Its Java SDK has that
 * binding for the gRPC client only.
 */
final class Binding {
    private static final String PREFIX = "CE_";
    private static final String CONTENT_TYPE = "CE_contenttype";
    private static final byte[] NO_DATA = {0};

    private Binding() {}

    static CloudEvent read(Message m) {
        Map<String, String> properties = m.getProperties();
        return MessageUtils.parseStructuredOrBinaryMessage(
                () -> properties.get(CONTENT_TYPE),
                format -> new GenericStructuredMessageReader(format, m.getBody()),
                () -> properties.get(PREFIX + "specversion"),
                version -> new BinaryReader(version, properties, m.getBody()))
            .toEvent();
    }

    private static final class BinaryReader extends BaseGenericBinaryMessageReaderImpl<String, String> {
        private final Map<String, String> properties;

        BinaryReader(SpecVersion version, Map<String, String> properties, byte[] body) {
            super(version, body.length == 1 && body[0] == 0 ? null : BytesCloudEventData.wrap(body));
            this.properties = properties;
        }

        @Override
        protected boolean isContentTypeHeader(String name) {
            return name.equals(CONTENT_TYPE);
        }

        @Override
        protected boolean isCloudEventsHeader(String name) {
            return name.startsWith(PREFIX);
        }

        @Override
        protected String toCloudEventsKey(String name) {
            return name.substring(PREFIX.length());
        }

        @Override
        protected void forEachHeader(BiConsumer<String, String> each) {
            properties.forEach(each);
        }

        @Override
        protected String toCloudEventsValue(String value) {
            return value;
        }
    }

    /** Writes an event to a message, as the binding does: extensions have no prefix. */
    static final class Writer implements MessageWriter<CloudEventWriter<Message>, Message>, CloudEventWriter<Message> {
        private final Message m;

        Writer(String topic) {
            m = new Message(topic, NO_DATA);
        }

        @Override
        public CloudEventWriter<Message> create(SpecVersion version) {
            m.putUserProperty(PREFIX + "specversion", version.toString());
            return this;
        }

        @Override
        public CloudEventContextWriter withContextAttribute(String name, String value) {
            if (name.equals("datacontenttype")) {
                m.putUserProperty(CONTENT_TYPE, value);
            } else if (SpecVersion.V1.getAllAttributes().contains(name)) {
                m.putUserProperty(PREFIX + name, value);
            } else {
                m.putUserProperty(name, value);
            }
            return this;
        }

        @Override
        public Message end(CloudEventData data) {
            m.setBody(data == null ? NO_DATA : data.toBytes());
            return m;
        }

        @Override
        public Message end() {
            return end(null);
        }

        @Override
        public Message setEvent(EventFormat format, byte[] value) {
            m.putUserProperty(CONTENT_TYPE, format.serializedContentType());
            m.setBody(value);
            return m;
        }
    }
}
