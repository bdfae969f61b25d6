// The work of Tidegate's benchmarks as jobs of Apache Flink: a source on one TaskManager, its exchange over TCP, a sum on the
// other. Both ends measure themselves, from the end of the warm-up to the last record, and leave what they found in files of
// the run's directory; whoever started them checks counts and sums.
//
// Tuned: objects are reused; pairs and opaque records have serializers of their own, which read into one object each, since
// nothing keeps a record; no checkpoints; state is a mutable long on the heap.

import java.io.IOException;
import java.io.Serializable;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.lang.management.ManagementFactory;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.api.java.typeutils.GenericTypeInfo;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.legacy.RichSinkFunction;
import org.apache.flink.streaming.api.functions.source.legacy.RichSourceFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.api.common.serialization.SerializerConfig;

public final class Peer {
    public static void main(String[] words) throws Exception {
        Flags flags = new Flags(words);
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        env.setParallelism(1);
        env.setBufferTimeout(flags.number("buffer-timeout"));
        env.getConfig().enableObjectReuse();
        switch (flags.word("shape")) {
            case "keyed" -> keyed(env, flags);
            case "bytes" -> bytes(env, flags);
            case "latency" -> latency(env, flags);
            default -> throw new IllegalArgumentException("no such shape: " + flags.word("shape"));
        }
        env.execute("peer-" + flags.word("shape"));
    }

    private static void keyed(StreamExecutionEnvironment env, Flags flags) {
        env.addSource(new PairSource(flags), "pairs", new PairType())
                .slotSharingGroup("source")
                .keyBy(pair -> pair.key, Types.LONG)
                .process(new KeyedSum(flags), Types.LONG)
                .name("sum")
                .slotSharingGroup("sum")
                .addSink(new Totals(flags))
                .name("totals")
                .slotSharingGroup("sum");
    }

    private static void bytes(StreamExecutionEnvironment env, Flags flags) {
        env.addSource(new OpaqueSource(flags), "records", new OpaqueType())
                .slotSharingGroup("source")
                .rebalance()
                .addSink(new WordSum(flags))
                .name("sum")
                .slotSharingGroup("sum");
    }

    private static void latency(StreamExecutionEnvironment env, Flags flags) {
        env.addSource(new DueSource(flags), "due", new PairType())
                .slotSharingGroup("source")
                .rebalance()
                .addSink(new Latencies(flags))
                .name("latencies")
                .slotSharingGroup("sum");
    }

    /** Words --name value; all are needed. */
    static final class Flags implements Serializable {
        private final Map<String, String> words = new HashMap<>();

        Flags(String[] all) {
            for (int at = 0; at + 1 < all.length; at += 2) {
                words.put(all[at].substring(2), all[at + 1]);
            }
        }

        String word(String name) {
            String word = words.get(name);
            if (word == null) {
                throw new IllegalArgumentException("--" + name + " is missing");
            }
            return word;
        }

        long number(String name) {
            return Long.parseLong(word(name));
        }

        Path file(String name) {
            return Path.of(word("dir"), name);
        }
    }

    /** Leaves a result in one step, so that nobody finds half of it. */
    static void leave(Path path, String json) throws IOException {
        Path part = path.resolveSibling(path.getFileName() + ".part");
        Files.writeString(part, json);
        Files.move(part, path, java.nio.file.StandardCopyOption.ATOMIC_MOVE);
    }

    /** Measures one end, from the end of the warm-up to the last record. */
    static final class Meter implements Serializable {
        final long last;
        long seen;
        private long edge;
        private long started;
        private long start;
        private long cpu;
        private long records;
        private double seconds;
        private double cpuSeconds;

        Meter(Flags flags) {
            last = flags.number("records") + flags.number("warm-up");
            edge = flags.number("warm-up");
        }

        void count() {
            if (++seen == edge) {
                atEdge();
            }
        }

        private void atEdge() {
            if (edge != last) {
                started = seen;
                cpu = cpuTime();
                start = System.nanoTime();
                edge = last;
                return;
            }
            seconds = (System.nanoTime() - start) / 1e9;
            cpuSeconds = (cpuTime() - cpu) / 1e9;
            records = seen - started;
        }

        String json(long results, long checksum) {
            return String.format(
                    java.util.Locale.ROOT,
                    "{\"pid\":%d,\"records\":%d,\"seconds\":%.9f,\"cpu_seconds\":%.6f,\"totals\":{\"results\":%d,\"checksum\":%s}}",
                    ProcessHandle.current().pid(), records, seconds, cpuSeconds, results, Long.toUnsignedString(checksum));
        }

        private static long cpuTime() {
            return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                    .getProcessCpuTime();
        }
    }

    // Records.

    public static final class Pair {
        public long key;
        public long value;
    }

    public static final class PairSerializer extends TypeSerializerSingleton<Pair> {
        private transient Pair reused;

        @Override
        public PairSerializer duplicate() {
            return new PairSerializer();
        }

        @Override
        public boolean isImmutableType() {
            return false;
        }

        @Override
        public Pair createInstance() {
            return new Pair();
        }

        @Override
        public Pair copy(Pair from) {
            return copy(from, new Pair());
        }

        @Override
        public Pair copy(Pair from, Pair reuse) {
            reuse.key = from.key;
            reuse.value = from.value;
            return reuse;
        }

        @Override
        public int getLength() {
            return 16;
        }

        @Override
        public void serialize(Pair pair, DataOutputView target) throws IOException {
            target.writeLong(pair.key);
            target.writeLong(pair.value);
        }

        @Override
        public Pair deserialize(DataInputView source) throws IOException {
            if (reused == null) {
                reused = new Pair();
            }
            return deserialize(reused, source);
        }

        @Override
        public Pair deserialize(Pair reuse, DataInputView source) throws IOException {
            reuse.key = source.readLong();
            reuse.value = source.readLong();
            return reuse;
        }

        @Override
        public void copy(DataInputView source, DataOutputView target) throws IOException {
            target.write(source, 16);
        }

        @Override
        public TypeSerializerSnapshot<Pair> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Pair> {
            public Snapshot() {
                super(PairSerializer::new);
            }
        }
    }

    static final class PairType extends GenericTypeInfo<Pair> {
        PairType() {
            super(Pair.class);
        }

        @Override
        public TypeSerializer<Pair> createSerializer(SerializerConfig config) {
            return new PairSerializer();
        }
    }

    public static final class Opaque {
        public byte[] bytes = new byte[0];
    }

    public static final class OpaqueSerializer extends TypeSerializerSingleton<Opaque> {
        private transient Opaque reused;

        @Override
        public OpaqueSerializer duplicate() {
            return new OpaqueSerializer();
        }

        @Override
        public boolean isImmutableType() {
            return false;
        }

        @Override
        public Opaque createInstance() {
            return new Opaque();
        }

        @Override
        public Opaque copy(Opaque from) {
            return copy(from, new Opaque());
        }

        @Override
        public Opaque copy(Opaque from, Opaque reuse) {
            reuse.bytes = from.bytes.clone();
            return reuse;
        }

        @Override
        public int getLength() {
            return -1;
        }

        @Override
        public void serialize(Opaque opaque, DataOutputView target) throws IOException {
            target.writeInt(opaque.bytes.length);
            target.write(opaque.bytes);
        }

        @Override
        public Opaque deserialize(DataInputView source) throws IOException {
            if (reused == null) {
                reused = new Opaque();
            }
            return deserialize(reused, source);
        }

        @Override
        public Opaque deserialize(Opaque reuse, DataInputView source) throws IOException {
            int length = source.readInt();
            if (reuse.bytes.length != length) {
                reuse.bytes = new byte[length];
            }
            source.readFully(reuse.bytes);
            return reuse;
        }

        @Override
        public void copy(DataInputView source, DataOutputView target) throws IOException {
            int length = source.readInt();
            target.writeInt(length);
            target.write(source, length);
        }

        @Override
        public TypeSerializerSnapshot<Opaque> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Opaque> {
            public Snapshot() {
                super(OpaqueSerializer::new);
            }
        }
    }

    static final class OpaqueType extends GenericTypeInfo<Opaque> {
        OpaqueType() {
            super(Opaque.class);
        }

        @Override
        public TypeSerializer<Opaque> createSerializer(SerializerConfig config) {
            return new OpaqueSerializer();
        }
    }

    // Sources.

    /** Pairs: record i has key (i * stride) mod keys and value i. */
    static final class PairSource extends RichSourceFunction<Pair> {
        private final Flags flags;
        private volatile boolean running = true;

        PairSource(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void run(SourceContext<Pair> context) throws Exception {
            long keys = flags.number("keys");
            long stride = flags.number("stride");
            Meter meter = new Meter(flags);
            Pair pair = new Pair();
            long next = 0;
            while (running && meter.seen < meter.last) {
                pair.key = next;
                pair.value = meter.seen;
                next += stride;
                if (next >= keys) {
                    next -= keys;
                }
                context.collect(pair);
                meter.count();
            }
            leave(flags.file("source.json"), meter.json(0, 0));
        }

        @Override
        public void cancel() {
            running = false;
        }
    }

    /** Opaque records: byte i of the template is i * 151 + 17; the first word is the record's number. */
    static final class OpaqueSource extends RichSourceFunction<Opaque> {
        private final Flags flags;
        private volatile boolean running = true;

        OpaqueSource(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void run(SourceContext<Opaque> context) throws Exception {
            Opaque opaque = new Opaque();
            opaque.bytes = new byte[(int) flags.number("record-bytes")];
            for (int at = 0; at < opaque.bytes.length; at++) {
                opaque.bytes[at] = (byte) (at * 151 + 17);
            }
            Meter meter = new Meter(flags);
            while (running && meter.seen < meter.last) {
                WORDS.set(opaque.bytes, 0, meter.seen);
                context.collect(opaque);
                meter.count();
            }
            leave(flags.file("source.json"), meter.json(0, 0));
        }

        @Override
        public void cancel() {
            running = false;
        }
    }

    /** Pairs of a number and the time it was due, at a fixed rate and whatever happens: the schedule never waits. */
    static final class DueSource extends RichSourceFunction<Pair> {
        /** What is due sooner than this is waited for without sleeping. */
        private static final long SPIN_NS = 100_000;
        private final Flags flags;
        private volatile boolean running = true;

        DueSource(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void run(SourceContext<Pair> context) throws Exception {
            long rate = flags.number("rate");
            long last = flags.number("records") + flags.number("warm-up");
            boolean sleep = flags.word("wait").equals("sleep");
            boolean spin = flags.word("wait").equals("spin");
            Pair pair = new Pair();
            long start = System.nanoTime() + 1_000_000;
            for (long number = 0; running && number < last; number++) {
                long due = start + (long) (number * 1e9 / rate);
                long early;
                while ((early = due - System.nanoTime()) > 0) {
                    if (sleep || early > SPIN_NS) {
                        LockSupport.parkNanos(early);
                    } else if (!spin) {
                        Thread.yield();
                    }
                }
                pair.key = number;
                pair.value = due;
                context.collect(pair);
            }
            double seconds = (System.nanoTime() - start) / 1e9;
            leave(flags.file("source.json"), String.format(java.util.Locale.ROOT,
                    "{\"pid\":%d,\"records\":%d,\"seconds\":%.9f}", ProcessHandle.current().pid(), last, seconds));
        }

        @Override
        public void cancel() {
            running = false;
        }
    }

    // Sums.

    private static final VarHandle WORDS =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    public static final class Sum {
        public long sum;
    }

    /** Sums by key; a timer at the end of time lets each key speak when all records have come. */
    static final class KeyedSum extends KeyedProcessFunction<Long, Pair, Long> {
        private final Flags flags;
        private transient Meter meter;
        private transient ValueState<Sum> state;

        KeyedSum(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void open(OpenContext context) {
            meter = new Meter(flags);
            state = getRuntimeContext()
                    .getState(new ValueStateDescriptor<>("sum", TypeInformation.of(Sum.class)));
        }

        @Override
        public void processElement(Pair pair, Context context, Collector<Long> out) throws Exception {
            Sum sum = state.value();
            if (sum == null) {
                sum = new Sum();
                state.update(sum);
                context.timerService().registerEventTimeTimer(Long.MAX_VALUE);
            }
            // In place: without checkpoints nobody else holds the object, and the lookup of an update is saved.
            sum.sum += pair.value;
            meter.count();
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Long> out) throws Exception {
            out.collect(state.value().sum);
        }

        @Override
        public void close() throws Exception {
            if (meter != null) {
                leave(flags.file("meter.json"), meter.json(0, 0));
            }
        }
    }

    static final class Totals extends RichSinkFunction<Long> {
        private final Flags flags;
        private long results;
        private long checksum;

        Totals(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void invoke(Long sum, Context context) {
            results++;
            checksum += sum;
        }

        @Override
        public void finish() throws IOException {
            leave(flags.file("totals.json"),
                    String.format("{\"results\":%d,\"checksum\":%s}", results, Long.toUnsignedString(checksum)));
        }
    }

    static final class WordSum extends RichSinkFunction<Opaque> {
        private final Flags flags;
        private transient Meter meter;
        private transient long checksum;

        WordSum(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void open(OpenContext context) {
            meter = new Meter(flags);
        }

        @Override
        public void invoke(Opaque opaque, Context context) {
            byte[] bytes = opaque.bytes;
            long sum = 0;
            int at = 0;
            for (; at + 8 <= bytes.length; at += 8) {
                sum += (long) WORDS.get(bytes, at);
            }
            for (int shift = 0; at < bytes.length; at++, shift += 8) {
                sum += (bytes[at] & 0xffL) << shift;
            }
            checksum += sum;
            meter.count();
        }

        @Override
        public void finish() throws IOException {
            leave(flags.file("meter.json"), meter.json(0, 0));
            leave(flags.file("totals.json"),
                    String.format("{\"results\":%d,\"checksum\":%s}", meter.seen, Long.toUnsignedString(checksum)));
        }
    }

    /** Arrival minus due, after the warm-up, in buckets of at most 1/128 of their value. */
    static final class Latencies extends RichSinkFunction<Pair> {
        private static final int PART_BITS = 7;
        private final Flags flags;
        private transient long[] buckets;
        private transient long warmUp;
        private transient long records;
        private transient long sum;
        private transient long max;
        private transient long first;
        private transient long lastArrival;

        Latencies(Flags flags) {
            this.flags = flags;
        }

        @Override
        public void open(OpenContext context) {
            warmUp = flags.number("warm-up");
            buckets = new long[64 << PART_BITS];
        }

        @Override
        public void invoke(Pair pair, Context context) {
            sum += pair.key;
            records++;
            if (pair.key < warmUp) {
                return;
            }
            long now = System.nanoTime();
            if (pair.key == warmUp) {
                first = pair.value;
            }
            long latency = Math.max(now - pair.value, 0);
            buckets[bucket(latency)]++;
            max = Math.max(max, latency);
            lastArrival = now;
        }

        static int bucket(long ns) {
            int bits = 64 - Long.numberOfLeadingZeros(ns >>> PART_BITS);
            return (bits << PART_BITS) + (int) (bits == 0 ? ns : (ns >>> (bits - 1)) - (1L << PART_BITS));
        }

        /** The greatest value of a bucket. */
        static long top(int bucket) {
            int bits = bucket >>> PART_BITS;
            long part = bucket & ((1 << PART_BITS) - 1);
            return bits == 0 ? part : ((part + (1L << PART_BITS) + 1) << (bits - 1)) - 1;
        }

        @Override
        public void finish() throws IOException {
            long measured = 0;
            for (long bucket : buckets) {
                measured += bucket;
            }
            StringBuilder json = new StringBuilder(String.format(java.util.Locale.ROOT,
                    "{\"pid\":%d,\"records\":%d,\"checksum\":%s,\"measured\":%d,\"seconds\":%.9f,\"latency_us\":{\"max\":%.3f",
                    ProcessHandle.current().pid(), records, Long.toUnsignedString(sum), measured,
                    (lastArrival - first) / 1e9, max / 1e3));
            double[] parts = {0.5, 0.9, 0.99, 0.999, 0.9999};
            String[] names = {"p50", "p90", "p99", "p99_9", "p99_99"};
            for (int at = 0; at < parts.length; at++) {
                long wanted = (long) Math.ceil(parts[at] * measured);
                long below = 0;
                int bucket = 0;
                while (bucket < buckets.length - 1 && (below += buckets[bucket]) < wanted) {
                    bucket++;
                }
                json.append(String.format(java.util.Locale.ROOT, ",\"%s\":%.3f", names[at], Math.min(top(bucket), max) / 1e3));
            }
            leave(flags.file("latency.json"), json.append("}}").toString());
        }
    }
}
