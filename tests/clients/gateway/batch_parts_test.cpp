// The parts of a batch that need no process: lines, groups, custom_ids, progress, outputs, record.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "clients/gateway/batches/batch_output.hpp"
#include "clients/gateway/batches/batch_progress.hpp"
#include "clients/gateway/batches/lines/batch_line.hpp"
#include "clients/gateway/batches/lines/custom_ids.hpp"
#include "clients/gateway/batches/lines/input_check.hpp"
#include "clients/gateway/batches/lines/line_groups.hpp"
#include "clients/gateway/batches/lines/line_reader.hpp"
#include "clients/gateway/batches/lines/result_lines.hpp"
#include "clients/gateway/batches/token_pace.hpp"
#include "common/check.hpp"

namespace tessera::gateway {
namespace {

namespace fs = std::filesystem;

class Folder : public testing::Test {
 protected:
  Folder() {
    std::string name = fs::temp_directory_path() / "tessera-batch-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~Folder() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::string read(const fs::path& path) const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  fs::path folder_;
};

using LineReaderTest = Folder;
using CustomIdsTest = Folder;
using InputCheckTest = Folder;
using BatchOutputTest = Folder;
using BatchProgressTest = Folder;

std::string line_of(const std::string& id, const std::string& body) {
  return R"({"custom_id":")" + id + R"(","method":"POST","url":"/v1/embeddings","body":)" + body +
         "}";
}

protocol::ModelInfo model() { return {.name = "m", .hidden_size = 256, .tokenizer_hash = "hash"}; }

// reading lines

TEST_F(LineReaderTest, GivesLinesWithTheirNumbersWhateverTheirEnds) {
  const InputFile file(write("in",
                             "\xEF\xBB\xBF"
                             "one\r\n\n  \ntwo\n\xEF\xBB\xBFthree"));
  LineReader reader(file);
  std::string line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "one\r");
  EXPECT_EQ(reader.number(), 1U);
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "two");
  EXPECT_EQ(reader.number(), 4U);
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "\xEF\xBB\xBFthree");
  EXPECT_EQ(reader.number(), 5U);
  EXPECT_FALSE(reader.next(line));
  EXPECT_FALSE(reader.next(line));
}

TEST_F(LineReaderTest, BoundsALineAndGoesOnBehindIt) {
  const std::string wide(700'000, 'x');  // Beyond its buffer.
  const InputFile file(write("in", "12345\n123456\n" + wide + "\nab\n"));
  LineReader narrow(file, 5);
  std::string line;
  ASSERT_TRUE(narrow.next(line));
  EXPECT_FALSE(narrow.too_long());
  ASSERT_TRUE(narrow.next(line));
  EXPECT_TRUE(narrow.too_long());
  EXPECT_EQ(line, "12345");
  ASSERT_TRUE(narrow.next(line));
  EXPECT_TRUE(narrow.too_long());
  ASSERT_TRUE(narrow.next(line));
  EXPECT_EQ(line, "ab");
  EXPECT_EQ(narrow.number(), 4U);
  LineReader roomy(file);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(roomy.next(line));
  }
  EXPECT_EQ(line, wide);
}

TEST_F(LineReaderTest, ReadsOnWhenTheFileIsRemoved) {
  const fs::path path = write("in", "one\ntwo\n");
  const InputFile file(path);
  fs::remove(path);
  LineReader reader(file);
  std::string line;
  EXPECT_TRUE(reader.next(line) && reader.next(line));
  EXPECT_EQ(line, "two");
  EXPECT_THROW(InputFile{path}, FatalError);
}

// one line

BatchFault fault_of(std::string line) {
  auto read = read_batch_line(line, 2048);
  return std::holds_alternative<BatchFault>(read) ? std::get<BatchFault>(read) : BatchFault{};
}

TEST(BatchLineTest, IsRefusedWithItsBatchWhereItsFrameIsWrong) {
  EXPECT_EQ(fault_of("{").code, "invalid_json_line");
  EXPECT_EQ(fault_of("[]").code, "invalid_json_line");
  EXPECT_EQ(fault_of(R"({"custom_id":1})").code, "invalid_json_line");
  EXPECT_EQ(fault_of(R"({"custom_id":1})").param, "custom_id");
  EXPECT_EQ(fault_of(R"({"method":"POST"})").code, "missing_custom_id");
  EXPECT_EQ(fault_of(line_of(std::string(513, 'a'), "{}")).code, "invalid_custom_id");
  EXPECT_EQ(fault_of(R"({"custom_id":"a"})").code, "invalid_method");
  EXPECT_EQ(fault_of(R"({"custom_id":"a","method":"POST","url":"/v1/x"})").code, "url_mismatch");
}

TEST(BatchLineTest, KeepsWhatIsWrongWithItsBodyForItself) {
  for (const std::string body :
       {"1", R"({"input":"a"})", R"({"model":"m"})", R"({"model":"m","input":"a","colour":1})",
        R"({"model":"m","input":"a","dimensions":9999})", R"({"model":"m","input":[[1]]})"}) {
    std::string text = line_of("a", body);
    auto read = read_batch_line(text, 2048);
    ASSERT_TRUE(std::holds_alternative<BatchLine>(read)) << body;
    auto& line = std::get<BatchLine>(read);
    judge_batch_line(line, model(), false);
    ASSERT_TRUE(line.read.problem.has_value()) << body;
    EXPECT_EQ(line.read.problem->status, 400) << body;
  }
  std::string no_body = R"({"custom_id":"a","method":"POST","url":"/v1/embeddings","mine":1})";
  auto read = read_batch_line(no_body, 2048);
  EXPECT_TRUE(std::get<BatchLine>(read).read.problem.has_value());
}

TEST(BatchLineTest, TakesTheFieldsOfTheRoute) {
  std::string text =
      line_of("a", R"({"model":"m","input":["x",""],"dimensions":64,"encoding_format":"base64"})");
  auto read = read_batch_line(text, 2048);
  auto& line = std::get<BatchLine>(read);
  judge_batch_line(line, model(), false);
  ASSERT_FALSE(line.read.problem.has_value());
  EXPECT_EQ(line.read.call.spec.dimensions, 64U);
  EXPECT_EQ(line.read.call.spec.model, "m");
  EXPECT_TRUE(line.read.base64);
  const protocol::ItemBlock items = take_items(line.read.call.items);
  EXPECT_EQ(items.sizes, (std::vector<std::uint32_t>{1, 0}));
}

TEST(BatchLineTest, ManyItemsAreOneBlockWithTheirKinds) {
  ItemList items;
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(items.add_text("t", 2048));
  }
  const std::vector<std::int32_t> ids{1, 2};
  ASSERT_TRUE(items.add_ids(ids, 2048));
  const protocol::ItemBlock all = take_items(items);
  ASSERT_TRUE(protocol::validate(all));
  ASSERT_EQ(all.sizes.size(), 301U);
  EXPECT_EQ(all.kinds.at(299), 0);
  EXPECT_EQ(all.kinds.at(300), 1);
}

// groups

TEST(LineGroupsTest, HoldWholeLinesUpToTheirBounds) {
  LineGroups groups;
  EXPECT_EQ(groups.place(200, 10), 0U);
  EXPECT_EQ(groups.place(56, 10), 0U);
  EXPECT_EQ(groups.place(1, 10), 1U);
  EXPECT_EQ(groups.place(2048, 10), 2U);  // Above the bound: alone.
  EXPECT_EQ(groups.place(1, 10), 3U);
  EXPECT_EQ(groups.place(1, LineGroups::kBytesMax - 10), 3U);
  EXPECT_EQ(groups.place(1, 1), 4U);
  EXPECT_EQ(groups.count(), 5U);
}

// custom_ids

TEST_F(CustomIdsTest, FindsTwinsInWhateverShares) {
  for (const std::size_t share : {std::size_t{1} << 20U, std::size_t{1000}}) {
    CustomIds ids(folder_, share);
    for (std::uint64_t i = 1; i <= 20'000; ++i) {
      ids.add("id " + std::to_string(i % 19'998), i);
    }
    const std::vector<CustomIds::Twin> both{{.line = 19'999, .first = 1},
                                            {.line = 20'000, .first = 2}};
    EXPECT_EQ(ids.twins(100), both);
    EXPECT_EQ(ids.twins(1), std::vector<CustomIds::Twin>{both.front()});
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

// the check of an input

std::optional<CheckedInput> check(const fs::path& folder, const fs::path& path,
                                  AppendFile& errors) {
  const InputFile input(path);
  const CheckRules rules{.models = {model()}};
  return check_input(input, rules, LineNames("batch_1"), folder, errors, [] { return true; });
}

TEST_F(InputCheckTest, GathersSpecsAndWritesBadBodies) {
  AppendFile errors(folder_ / "errors");
  const fs::path path =
      write("in", line_of("a", R"({"model":"m","input":"x"})") + "\n" +
                      line_of("b", R"({"model":"m","input":"x","dimensions":64})") + "\n" +
                      line_of("c", R"({"model":"m","input":"y","encoding_format":"base64"})") +
                      "\n" + line_of("d", R"({"model":"m"})") + "\n");
  const auto found = check(folder_, path, errors);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->faults.empty());
  EXPECT_EQ(found->plan.lines, 4U);
  EXPECT_EQ(found->refused, 1U);
  EXPECT_EQ(found->plan.model, "m");
  ASSERT_EQ(found->plan.specs.size(), 2U);  // How a vector is written is not part of it.
  EXPECT_EQ(found->plan.specs[1].dimensions, 64U);
  errors.sync();
  const auto told = nlohmann::json::parse(read(folder_ / "errors"));
  EXPECT_EQ(told["custom_id"], "d");
  EXPECT_EQ(told["response"]["status_code"], 400);
  EXPECT_EQ(told["response"]["body"]["error"]["param"], "input");
}

TEST_F(InputCheckTest, TellsFaultsByLine) {
  AppendFile errors(folder_ / "errors");
  const std::string good = line_of("a", R"({"model":"m","input":"x"})") + "\n";
  const auto found = check(
      folder_, write("in", good + "x\n" + good + line_of("b", R"({"model":"o","input":"x"})")),
      errors);
  ASSERT_TRUE(found.has_value());
  std::vector<std::pair<std::string, std::uint64_t>> codes;
  for (const BatchFault& fault : found->faults) {
    codes.emplace_back(fault.code, fault.line);
  }
  EXPECT_EQ(codes,
            (std::vector<std::pair<std::string, std::uint64_t>>{
                {"invalid_json_line", 2}, {"duplicate_custom_id", 3}, {"model_not_found", 4}}));
}

TEST_F(InputCheckTest, EndsWhenToldTo) {
  AppendFile errors(folder_ / "errors");
  const InputFile input(write("in", "x\n"));
  const CheckRules rules;
  EXPECT_FALSE(check_input(input, rules, LineNames("batch_1"), folder_, errors, [] {
                 return false;
               }).has_value());
}

// progress and outputs

BatchProgress some_progress() {
  BatchProgress progress;
  progress.plan = {.model = "m\"\n",
                   .hidden_size = 256,
                   .tokenizer_hash = "hash",
                   .accept_token_ids = true,
                   .specs = {{.model = "m",
                              .query = true,
                              .instruction = "find",
                              .dimensions = 64,
                              .vector_type = protocol::VectorType::kFloat16,
                              .truncate = protocol::Truncate::kRight,
                              .max_tokens = 7,
                              .prompt_name = "p"},
                             {}},
                   .lines = 1'000'000'000'000};
  progress.pass = 1;
  progress.done.insert(0, 5);
  progress.done.insert(7, 7);
  progress.completed = 10;
  progress.failed = 2;
  progress.tokens = 77;
  progress.cached_tokens = 3;
  progress.segments = {{.holder = 2, .output_bytes = 100, .error_bytes = 5}, {.holder = 9}};
  return progress;
}

TEST_F(BatchProgressTest, ComesBackFromItsFile) {
  const BatchProgress before = some_progress();
  EXPECT_FALSE(last_progress(folder_).has_value());
  save_progress(folder_, before);
  write("progress.2.json", "of a former holder, broken");
  write("progress.x.json", "of nobody");
  const auto after = last_progress(folder_);
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(to_json(*after), to_json(before));
  EXPECT_EQ(after->plan, before.plan);
  EXPECT_EQ(after->segments, before.segments);
  EXPECT_TRUE(after->done.contains(5) && !after->done.contains(6) && after->done.contains(7));
  write("progress.10.json", "{}");
  EXPECT_THROW((void)last_progress(folder_), FatalError);
}

TEST(BatchProgressFormTest, RefusesWhatIsNotItsOwn) {
  for (const std::string text :
       {"", "{}", R"({"format":2})", R"({"format":1,"done":[[1]]})", R"({"format":1,"pass":-1})",
        R"({"format":1,"plan":{"specs":[{"vector_type":9}]}})"}) {
    EXPECT_FALSE(read_progress(text).ok()) << text;
  }
}

TEST_F(BatchOutputTest, JoinsOnlyWhatWasMadeSafe) {
  std::vector<BatchSegment> segments{{.holder = 3}, {.holder = 8}};
  BatchOutput first(folder_, 3);
  first.output().append("one\n");
  first.sync(segments[0]);
  first.output().append("lost\n");
  first.output().sync();  // Behind what the progress says.
  const auto yes = [] { return true; };
  EXPECT_TRUE(join_segments(folder_, BatchOutput::Kind::kErrors, segments, {}, yes).empty());
  BatchOutput second(folder_, 8);
  second.output().append("two\n");
  second.errors().append("bad\n");
  second.sync(segments[1]);
  using Kind = BatchOutput::Kind;
  EXPECT_EQ(read(join_segments(folder_, Kind::kOutput, segments, {}, yes)), "one\ntwo\n");
  EXPECT_EQ(join_segments(folder_, Kind::kErrors, segments, {}, yes),
            BatchOutput::path(folder_, Kind::kErrors, 8));  // One whole file: as it is.
  const fs::path more = write("more", "late\n");
  EXPECT_EQ(read(join_segments(folder_, Kind::kErrors, segments, more, yes)), "bad\nlate\n");
  EXPECT_THROW(BatchOutput(folder_, 8), FatalError);  // Another holder's files are never emptied.
}

TEST_F(BatchOutputTest, StopsWhileItJoins) {
  std::vector<BatchSegment> segments{{.holder = 1}, {.holder = 2}};
  BatchOutput output(folder_, 1);
  output.output().append("one\n");
  output.sync(segments[0]);
  EXPECT_THROW(
      (void)join_segments(folder_, BatchOutput::Kind::kOutput, segments, {}, [] { return false; }),
      FatalError);
}

// lines of the outputs

protocol::ResultBlock results() {
  protocol::ResultBlock block;
  block.codes = {0, static_cast<std::uint8_t>(ErrorCode::kTooLong), 0};
  block.token_counts = {3, 0, 4};
  block.errors = {{.index = 1, .message = "is too long"}};
  block.sources = {1, 0, 3};
  block.dimensions = 2;
  const std::vector<float> rows{1, 2, 3, 4};
  const auto bytes = std::as_bytes(std::span(rows));
  block.payload.assign(bytes.begin(), bytes.end());
  return block;
}

TEST(ResultLinesTest, HaveTheRoutesAnswer) {
  const LineNames names("batch_1");
  PlacedLine line{.number = 7, .custom_id = "a\"b", .items = 1};
  const LineResult last = result_line(names, line, slice_of(results(), 2, 1, 1), "m");
  ASSERT_TRUE(last.ok);
  EXPECT_EQ(last.tokens, 4U);
  EXPECT_EQ(last.cached_tokens, 4U);
  EXPECT_EQ(last.text.back(), '\n');
  const auto json = nlohmann::json::parse(last.text);
  EXPECT_EQ(json["custom_id"], "a\"b");
  EXPECT_TRUE(json["error"].is_null());
  EXPECT_EQ(json["response"]["status_code"], 200);
  EXPECT_EQ(json["response"]["body"]["data"][0]["embedding"], (std::vector<float>{3, 4}));
  EXPECT_EQ(json["response"]["body"]["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(last.text, result_line(names, line, slice_of(results(), 2, 1, 1), "m").text);
  line.number = 8;
  EXPECT_NE(json["id"],
            nlohmann::json::parse(
                result_line(names, line, slice_of(results(), 2, 1, 1), "m").text)["id"]);
}

TEST(ResultLinesTest, OneBadItemIsTheWholeLinesError) {
  const LineNames names("batch_1");
  const PlacedLine line{.number = 1, .custom_id = "a", .items = 2};
  const LineResult bad = result_line(names, line, slice_of(results(), 0, 2, 0), "m");
  EXPECT_FALSE(bad.ok);
  const auto json = nlohmann::json::parse(bad.text);
  EXPECT_EQ(json["response"]["status_code"], 400);
  EXPECT_EQ(json["response"]["body"]["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(json["response"]["body"]["error"]["message"], "input[1]: is too long");
  const auto unrun = nlohmann::json::parse(names.unrun(1, "a", "batch_expired", "Too late."));
  EXPECT_TRUE(unrun["response"].is_null());
  EXPECT_EQ(unrun["error"]["code"], "batch_expired");
}

// the quota's pace

TEST(TokenPaceTest, SpendsAMinutesWorthAndThenWaits) {
  const TokenPace::TimePoint start{};
  TokenPace none(0, start);
  none.spend(1e9);
  EXPECT_TRUE(none.ready(start));
  TokenPace pace(600, start);
  pace.spend(1000);
  EXPECT_FALSE(pace.ready(start + std::chrono::seconds(39)));
  EXPECT_TRUE(pace.ready(start + std::chrono::seconds(41)));
  pace.correct(1000, 100);  // It was less than was thought.
  pace.spend(500);
  EXPECT_TRUE(pace.ready(start + std::chrono::seconds(41)));
  EXPECT_TRUE(pace.ready(start + std::chrono::hours(1)));
  pace.spend(601);  // No more than a minute's worth was saved up.
  EXPECT_FALSE(pace.ready(start + std::chrono::hours(1)));
}

}  // namespace
}  // namespace tessera::gateway
