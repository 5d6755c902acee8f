#include "common/wire/codec.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace tessera::protocol {
namespace {

Bytes bytes_of(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

SubmitChunk example_chunk() {
  SubmitChunk chunk{.job_id = "j1", .chunk = 7, .items = {}};
  chunk.items.sizes = {2, 8, 0};
  chunk.items.kinds = {0, 1, 0};
  chunk.items.payload = bytes_of("hi12345678");
  return chunk;
}

Message round_trip(Message message) {
  Frames frames = encode(std::move(message));
  auto decoded = decode(frames.header, std::move(frames.payload));
  CHECK(decoded.ok());
  return std::move(decoded).value();
}

TEST(Codec, KeepsAChunkAndItsPayload) {
  const auto chunk = std::get<SubmitChunk>(round_trip(example_chunk()));
  EXPECT_EQ(chunk.job_id, "j1");
  EXPECT_EQ(chunk.chunk, 7U);
  EXPECT_EQ(chunk.items.sizes, (std::vector<std::uint32_t>{2, 8, 0}));
  EXPECT_EQ(chunk.items.kinds, (std::vector<std::uint8_t>{0, 1, 0}));
  EXPECT_EQ(chunk.items.payload, bytes_of("hi12345678"));
  EXPECT_TRUE(validate(chunk.items).ok());
}

TEST(Codec, KeepsEveryKindOfField) {
  StatusReply reply{
      .request_id = 1ULL << 60, .epoch = 3, .uptime_s = 1.5, .jobs = {}, .workers = {}};
  reply.jobs.push_back({.job_id = "a", .job_key = "k", .model = "m", .state = JobState::kDone});
  reply.jobs.push_back({.job_id = "b", .job_key = {}, .model = {}, .items_done = 5});
  reply.models.push_back({.name = "m", .fingerprint = {}, .prompt_names = {"document", "query"}});
  reply.workers.push_back({.name = "w", .device = "cpu", .model = "m", .fingerprint = "f"});
  const auto got = std::get<StatusReply>(round_trip(reply));
  EXPECT_EQ(got.request_id, 1ULL << 60);
  EXPECT_EQ(got.uptime_s, 1.5);
  ASSERT_EQ(got.jobs.size(), 2U);
  EXPECT_EQ(got.jobs[0].state, JobState::kDone);
  EXPECT_EQ(got.jobs[1].items_done, 5U);
  EXPECT_EQ(got.workers.at(0).name, "w");
  EXPECT_EQ(got.models.at(0).prompt_names, reply.models.at(0).prompt_names);

  JobOpened opened{.request_id = 2, .job_id = "x", .accepted = {{0, 4}, {9, 9}}, .delivered = {}};
  EXPECT_EQ(std::get<JobOpened>(round_trip(opened)).accepted, opened.accepted);

  EmbedRequest request{.request_id = 9,
                       .spec = {.model = "m",
                                .query = true,
                                .instruction = "t",
                                .dimensions = 64,
                                .prompt_name = "p"},
                       .items = {}};
  EXPECT_EQ(std::get<EmbedRequest>(round_trip(request)).spec, request.spec);
}

TEST(Codec, KeepsDoublesThatAreWholeNumbers) {
  for (const double value : {0.0, 8.0, -8.0, 1e300, -0.5}) {
    StatusReply reply{.uptime_s = value};
    EXPECT_EQ(std::get<StatusReply>(round_trip(reply)).uptime_s, value);
  }
}

TEST(Codec, EveryMessageTypeSurvivesARoundTrip) {
  const auto check = [](Message message) {
    const std::size_t index = message.index();
    EXPECT_EQ(round_trip(std::move(message)).index(), index);
  };
  check(Ping{5});
  check(Pong{5});
  check(ErrorReply{});
  check(ClientHello{});
  check(EmbedRequest{});
  check(OpenJob{});
  check(SubmitChunk{});
  check(CloseJob{});
  check(ResultAck{});
  check(CancelJob{});
  check(LeaveJob{});
  check(StatusRequest{});
  check(ServerHello{});
  check(EmbedReply{});
  check(JobOpened{});
  check(ChunkAck{});
  check(ChunkResult{});
  check(JobUpdate{});
  check(StatusReply{});
  check(WorkerHello{});
  check(BatchResult{});
  check(WorkerGoodbye{});
  check(WorkerWelcome{});
  check(Batch{});
  check(WorkerMetrics{});
  check(MetricsRequest{});
  check(MetricsReply{});
  check(RecordPut{});
  check(RecordQuery{});
  check(RecordClaim{});
  check(RecordDelete{});
  check(RecordsReply{});
}

TEST(Codec, KeepsFiguresAndRecords) {
  WorkerMetrics metrics{
      .batches = 1ULL << 40, .batch_seconds = {}, .item_seconds = {}, .batch_fill = {}};
  metrics.batch_seconds = {.bounds = {0.5, 2}, .counts = {1, 1ULL << 50, 3}, .sum = 7.25};
  const auto worker = std::get<WorkerMetrics>(round_trip(metrics));
  EXPECT_EQ(worker.batches, 1ULL << 40);
  EXPECT_EQ(worker.batch_seconds.bounds, metrics.batch_seconds.bounds);
  EXPECT_EQ(worker.batch_seconds.counts, metrics.batch_seconds.counts);
  EXPECT_EQ(worker.batch_seconds.sum, 7.25);

  MetricsReply reply{.request_id = 4, .families = {}};
  reply.families.push_back({.name = "a_total",
                            .help = "h",
                            .type = MetricType::kCounter,
                            .labels = {"lane=\"bulk\"", ""},
                            .bounds = {},
                            .values = {1, 2.5}});
  const auto figures = std::get<MetricsReply>(round_trip(reply));
  ASSERT_EQ(figures.families.size(), 1U);
  EXPECT_EQ(figures.families[0].type, MetricType::kCounter);
  EXPECT_EQ(figures.families[0].labels, reply.families[0].labels);
  EXPECT_EQ(figures.families[0].values, reply.families[0].values);

  RecordsReply records{.request_id = 5, .records = {}, .more = true, .payload = bytes_of("{}")};
  records.records.push_back(
      {.id = "b", .tenant = "t", .version = 9, .open = true, .owner = {}, .bytes = 2});
  const auto page = std::get<RecordsReply>(round_trip(records));
  EXPECT_EQ(page.records.at(0).version, 9U);
  EXPECT_TRUE(page.records.at(0).open);
  EXPECT_TRUE(page.more);
  EXPECT_EQ(page.payload, bytes_of("{}"));

  Batch batch{.epoch = 1, .lengths = {2}, .payload = bytes_of("12345678")};
  batch.traces.push_back({.id = "req_1", .traceparent = "00-ab-cd-01"});
  EXPECT_EQ(std::get<Batch>(round_trip(batch)).traces, batch.traces);
}

// What a peer of protocol version 1.0 sends has none of the later fields.
TEST(Codec, MissingFieldsKeepTheirDefaults) {
  // [1, EmbedRequest, {1: 7}]
  const auto decoded = decode(bytes_of(std::string("\x93\x01\x04\x81\x01\x07", 6)), {});
  ASSERT_TRUE(decoded.ok());
  const auto& request = std::get<EmbedRequest>(*decoded);
  EXPECT_EQ(request.request_id, 7U);
  EXPECT_FALSE(request.no_cache || request.no_store);
  EXPECT_EQ(request.weight, 1U);
  EXPECT_EQ(request.trace, RequestTrace{});
  // [1, WorkerWelcome, {1: 3, 2: 500}]: an older coordinator wants no metrics.
  const auto welcome =
      decode(bytes_of(std::string("\x93\x01\x15\x82\x01\x03\x02\xcd\x01\xf4", 10)), {});
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(std::get<WorkerWelcome>(*welcome).metrics_ms, 0U);
}

ErrorCode decode_error(std::string_view header) {
  const auto decoded = decode(bytes_of(header), {});
  return decoded.ok() ? ErrorCode::kOk : decoded.error().code;
}

TEST(Codec, RefusesOtherVersionsAndUnknownTypesButNotUnknownFields) {
  EXPECT_EQ(decode_error(std::string("\x93\x01\x00\x80", 4)), ErrorCode::kOk);  // [1, Ping, {}]
  EXPECT_EQ(decode_error(std::string("\x93\x02\x00\x80", 4)), ErrorCode::kUnsupportedVersion);
  EXPECT_EQ(decode_error(std::string("\x93\x01\x7f\x80", 4)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode_error(std::string("\x93\x01\x00\x81\x63\xc3", 6)),
            ErrorCode::kOk);  // {99: true}
  EXPECT_EQ(decode_error(std::string("\x93\x01\x00\x81\x01\xa1x", 7)), ErrorCode::kInvalidArgument);
}

TEST(Codec, RefusesBombsWithoutAllocatingThem) {
  EXPECT_EQ(decode_error(""), ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode_error("\xdd\xff\xff\xff\xff"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode_error("\xdf\x7f\xff\xff\xff"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode_error("\xc6\xff\xff\xff\xff"), ErrorCode::kInvalidArgument);
  std::string nested;
  for (int i = 0; i < 200; ++i) {
    nested += std::string("\xdd\x00\x00\x00\xff", 5);
  }
  EXPECT_EQ(decode_error(nested), ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode_error(std::string(2 << 20, '\x91')), ErrorCode::kInvalidArgument);
}

TEST(Codec, SurvivesEveryFlippedByteAndEveryCut) {
  const Frames frames = encode(example_chunk());
  for (std::size_t i = 0; i < frames.header.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes damaged = frames.header;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      auto decoded = decode(damaged, frames.payload);
      if (decoded.ok() && std::holds_alternative<SubmitChunk>(*decoded)) {
        (void)validate(std::get<SubmitChunk>(*decoded).items).ok();
      }
    }
    EXPECT_FALSE(decode(std::span(frames.header).first(i), frames.payload).ok());
  }
}

TEST(ItemBlock, IsValidatedAsAWhole) {
  const auto code = [](auto change) {
    ItemBlock items = example_chunk().items;
    change(items);
    return validate(items).ok();
  };
  EXPECT_TRUE(code([](ItemBlock&) {}));
  EXPECT_TRUE(code([](ItemBlock& b) { b.kinds = {}; }));
  EXPECT_FALSE(code([](ItemBlock& b) {
    b.sizes = {};
    b.kinds = {};
    b.payload = {};
  }));
  EXPECT_FALSE(code([](ItemBlock& b) { b.sizes[0] = 3; }));
  EXPECT_FALSE(code([](ItemBlock& b) { b.payload.pop_back(); }));
  EXPECT_FALSE(code([](ItemBlock& b) { b.kinds.pop_back(); }));
  EXPECT_FALSE(code([](ItemBlock& b) { b.kinds[0] = 9; }));
  EXPECT_FALSE(code([](ItemBlock& b) { b.sizes = {3, 7, 0}; }));  // 7 bytes of token ids
  EXPECT_FALSE(code([](ItemBlock& b) { b.sizes[2] = 0xFFFFFFFF; }));
  EXPECT_FALSE(code([](ItemBlock& b) {
    b.sizes.assign(5000, 0);
    b.kinds = {};
    b.payload = {};
  }));
}

}  // namespace
}  // namespace tessera::protocol
