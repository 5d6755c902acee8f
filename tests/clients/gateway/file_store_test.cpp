#include "clients/gateway/files/file_store.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "clients/gateway/files/file_info.hpp"
#include "common/check.hpp"

namespace tessera::gateway {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kDay = 86'400;

class FileStoreTest : public testing::Test {
 protected:
  FileStoreTest() {
    std::string name = testing::TempDir() + "/files-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~FileStoreTest() override { fs::remove_all(folder_); }

  static FileInfo info_of(const std::string& tenant, std::int64_t created_at = 1000) {
    return {.id = {},
            .tenant = tenant,
            .filename = "../../x \"y\"\n.jsonl",
            .purpose = "batch",
            .created_at = created_at,
            .expires_at = std::nullopt};
  }
  static FileInfo put(FileStore& store, FileInfo info, std::string_view bytes = "{}\n") {
    auto writer = store.create();
    CHECK(writer.ok());
    CHECK((*writer)->write(bytes).ok());
    auto made = (*writer)->commit(std::move(info));
    CHECK(made.ok());
    return *made;
  }
  static std::string text_of(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  static std::vector<std::string> ids(FileStore& store, const FileQuery& query) {
    std::vector<std::string> all;
    const auto page = store.list("t", query);
    CHECK(page.ok());
    for (const FileInfo& info : page->files) {
      all.push_back(info.id);
    }
    return all;
  }
  std::size_t entries(const std::string& below) const {
    std::size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / below)) {
      count += entry.is_regular_file() ? 1 : 0;
    }
    return count;
  }
  static void spit(const fs::path& path, std::string_view text) { std::ofstream(path) << text; }
  // Where the tenant's files lie.
  static fs::path home(FileStore& store, const std::string& tenant) {
    FileInfo info = info_of(tenant);
    info.id = new_file_id();
    return store.path_of(info).parent_path();
  }

  fs::path folder_;
};

TEST_F(FileStoreTest, AFileIsThereWholeAfterCommitAndNotBefore) {
  FileStore store({.folder = folder_ / "deep/er", .bytes_max = 0});
  auto writer = store.create();
  ASSERT_TRUE(writer);
  ASSERT_TRUE((*writer)->write("first "));
  ASSERT_TRUE((*writer)->write(std::string("\0\xFF second", 9)));
  EXPECT_EQ((*writer)->bytes(), 15U);
  EXPECT_TRUE(ids(store, {}).empty());
  EXPECT_EQ(store.bytes_held(), 0U);
  FileInfo info = info_of("t");
  info.expires_at = std::time(nullptr) + 100;
  const auto made = (*writer)->commit(info);
  ASSERT_TRUE(made);
  EXPECT_TRUE(is_file_id(made->id)) << made->id;
  EXPECT_EQ(made->bytes, 15U);
  const auto found = store.find("t", made->id);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->filename, info.filename);
  EXPECT_EQ(found->tenant, "t");
  EXPECT_EQ(found->purpose, "batch");
  EXPECT_EQ(found->created_at, 1000);
  EXPECT_EQ(found->expires_at, info.expires_at);
  EXPECT_EQ(text_of(store.path_of(*found)), std::string("first \0\xFF second", 15));
  EXPECT_EQ(ids(store, {}), std::vector{made->id});
  EXPECT_EQ(store.bytes_held(), 15U);
}

TEST_F(FileStoreTest, AWriterThatEndsLeavesNothing) {
  FileStore store({.folder = folder_, .bytes_max = 10});
  {
    auto writer = store.create();
    ASSERT_TRUE((*writer)->write("0123456789"));
    EXPECT_EQ(entries("incoming"), 1U);
  }
  EXPECT_EQ(entries("incoming"), 0U);
  put(store, info_of("t"), "0123456789");  // The quota has been given back, too.
  EXPECT_EQ(entries("incoming"), 0U);
}

TEST_F(FileStoreTest, TenantsDoNotSeeEachOtherAndAreNoPaths) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const std::string long_name(5000, 'x');
  const std::string tenants[] = {
      "", "a", "A", "..", "../../a", "/etc", std::string("a\0b", 3), "\xFF", long_name};
  std::vector<FileInfo> made;
  for (const std::string& tenant : tenants) {
    made.push_back(put(store, info_of(tenant), tenant + "!"));
  }
  for (std::size_t i = 0; i < made.size(); ++i) {
    for (std::size_t j = 0; j < made.size(); ++j) {
      const auto found = store.find(tenants[i], made[j].id);
      EXPECT_EQ(found.ok(), i == j);
      if (i != j) {
        EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
        EXPECT_FALSE(store.remove(tenants[i], made[j].id));
      } else {
        EXPECT_EQ(found->tenant, tenants[i]);
        EXPECT_EQ(text_of(store.path_of(*found)), tenants[i] + "!");
      }
    }
    EXPECT_EQ(store.list(tenants[i], {})->files.size(), 1U);
  }
  EXPECT_EQ(entries("files"), 2 * made.size());
}

TEST_F(FileStoreTest, IdsThatAreNoIdsAreNotFound) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const FileInfo made = put(store, info_of("t"));
  spit(folder_ / "outside.json", record_of(made));
  for (const std::string& id :
       {std::string(), std::string("file-"), std::string("../../outside"), made.id + "/",
        made.id + std::string(1, '\0'), made.id.substr(1),
        std::string("file-") + std::string(32, '.'), std::string("file-") + std::string(32, 'A')}) {
    EXPECT_EQ(store.find("t", id).error().code, ErrorCode::kNotFound) << id;
    EXPECT_EQ(store.remove("t", id).error().code, ErrorCode::kNotFound) << id;
    EXPECT_EQ(store.list("t", {.purpose = {}, .after = id.empty() ? "x" : id}).error().code,
              ErrorCode::kInvalidArgument);
    FileInfo info = info_of("t");
    info.id = id.empty() ? "x" : id;
    EXPECT_EQ((*store.create())->commit(info).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(store.adopt(folder_ / "outside.json", info).error().code,
              ErrorCode::kInvalidArgument);
  }
  for (const std::string id : {"", "..", "a/b", "/", ".", "a b"}) {
    EXPECT_EQ(store.work_folder(id).error().code, ErrorCode::kInvalidArgument) << id;
    store.remove_work_folder(id);
  }
  EXPECT_TRUE(store.find("t", made.id));
}

TEST_F(FileStoreTest, PagesGoThroughAllFilesOnce) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  std::vector<std::string> oldest_first;
  for (int i = 0; i < 7; ++i) {
    FileInfo info = info_of("t", 1000 + i / 2);  // Some of one second.
    info.purpose = i % 2 == 0 ? "batch" : "batch_output";
    oldest_first.push_back(put(store, info).id);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // Ids of different times.
  }
  const std::vector<std::string> newest_first(oldest_first.rbegin(), oldest_first.rend());
  EXPECT_EQ(ids(store, {}), newest_first);
  for (const bool ascending : {false, true}) {
    for (std::size_t limit = 1; limit <= 8; ++limit) {
      std::vector<std::string> all;
      FileQuery query{.purpose = {}, .after = {}, .limit = limit, .ascending = ascending};
      for (bool more = true; more;) {
        const auto page = store.list("t", query);
        ASSERT_TRUE(page);
        ASSERT_LE(page->files.size(), limit);
        ASSERT_FALSE(page->files.empty());
        for (const FileInfo& info : page->files) {
          all.push_back(info.id);
        }
        query.after = all.back();
        more = page->more;
      }
      EXPECT_EQ(all, ascending ? oldest_first : newest_first);
    }
  }
  EXPECT_EQ(ids(store, {.purpose = "batch_output", .after = {}}).size(), 3U);
  EXPECT_EQ(ids(store, {.purpose = "batch", .after = newest_first[1]}).size(), 3U);
  EXPECT_TRUE(ids(store, {.purpose = "other", .after = {}}).empty());
}

TEST_F(FileStoreTest, TwoStoresOnOneFolderSeeTheSame) {
  FileStore one({.folder = folder_, .bytes_max = 0});
  FileStore other({.folder = folder_, .bytes_max = 0});
  const FileInfo made = put(one, info_of("t"), "bytes");
  ASSERT_TRUE(other.find("t", made.id));
  EXPECT_EQ(text_of(other.path_of(made)), "bytes");
  const int open_file = open(one.path_of(made).c_str(), O_RDONLY);
  ASSERT_GE(open_file, 0);
  EXPECT_TRUE(other.remove("t", made.id));
  EXPECT_FALSE(one.find("t", made.id));
  EXPECT_EQ(one.remove("t", made.id).error().code, ErrorCode::kNotFound);
  char kept[5] = {};
  EXPECT_EQ(read(open_file, kept, 5), 5);  // An open descriptor outlives it.
  EXPECT_EQ(std::string(kept, 5), "bytes");
  close(open_file);
}

TEST_F(FileStoreTest, ManyThreadsAndTwoStoresAtOnce) {
  FileStore one({.folder = folder_, .bytes_max = 0});
  FileStore other({.folder = folder_, .bytes_max = 0});
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&store = i % 2 == 0 ? one : other] {
      for (int n = 0; n < 25; ++n) {
        const FileInfo made = put(store, info_of("t"));
        if (n % 5 == 0) {
          CHECK(store.remove("t", made.id).ok());
        }
        CHECK(store.list("t", {}).ok());
        store.sweep(std::time(nullptr));
      }
    });
  }
  threads.clear();
  const auto left = ids(one, {});
  EXPECT_EQ(left.size(), 80U);
  EXPECT_EQ(std::set<std::string>(left.begin(), left.end()).size(), 80U);
  EXPECT_EQ(ids(other, {}), left);
  EXPECT_EQ(entries("files"), 160U);
}

TEST_F(FileStoreTest, TheQuotaCountsFilesAndUnfinishedOnes) {
  FileStore store({.folder = folder_, .bytes_max = 100});
  const FileInfo first = put(store, info_of("t"), std::string(40, 'x'));
  auto writer = store.create();
  ASSERT_TRUE((*writer)->write(std::string(30, 'x')));
  auto other = store.create();
  ASSERT_TRUE((*other)->write(std::string(30, 'x')));
  const auto full = (*other)->write("x");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kResourceExhausted);
  writer->reset();
  EXPECT_TRUE((*other)->write(std::string(30, 'x')));
  ASSERT_TRUE((*other)->commit(info_of("u")));
  EXPECT_FALSE((*store.create())->write("x"));
  ASSERT_TRUE(store.remove("t", first.id));
  EXPECT_TRUE((*store.create())->write(std::string(40, 'x')));
  FileStore later({.folder = folder_, .bytes_max = 100});  // Counts what it finds.
  EXPECT_EQ(later.bytes_held(), 60U);
  EXPECT_FALSE((*later.create())->write(std::string(41, 'x')));
}

TEST_F(FileStoreTest, ExpiredFilesAreNotFoundAndAreSwept) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const std::int64_t now = std::time(nullptr);
  FileInfo info = info_of("t");
  info.expires_at = now - 1;
  const FileInfo expired = put(store, info);
  info.expires_at = now + 1000;
  const FileInfo fresh = put(store, info);
  const FileInfo forever = put(store, info_of("t"));
  EXPECT_FALSE(store.find("t", expired.id));
  EXPECT_FALSE(store.remove("t", expired.id));
  EXPECT_EQ(ids(store, {}).size(), 2U);
  EXPECT_EQ(ids(store, {.purpose = {}, .after = expired.id, .ascending = true}).size(), 2U);
  EXPECT_EQ(store.sweep(now), 1U);
  EXPECT_EQ(entries("files"), 4U);
  EXPECT_EQ(store.sweep(now + 1001), 1U);
  EXPECT_FALSE(store.find("t", fresh.id));
  EXPECT_EQ(store.sweep(now + 1001), 0U);
  EXPECT_TRUE(store.find("t", forever.id));
}

TEST_F(FileStoreTest, WhatACrashLeftIsNotSeenAndGoesAfterADay) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const FileInfo made = put(store, info_of("t"));
  const fs::path home_of_t = home(store, "t");
  spit(folder_ / "incoming/killed.part", "half");
  spit(folder_ / "incoming/killed.json", "half a record");
  spit(home_of_t / (new_file_id() + ".jsonl"), "bytes whose record was not written");
  EXPECT_EQ(ids(store, {}), std::vector{made.id});
  const std::int64_t now = std::time(nullptr);
  EXPECT_EQ(store.sweep(now), 0U);  // It may be another process's, at work just now.
  EXPECT_EQ(store.sweep(now + kDay + 10), 3U);
  EXPECT_EQ(entries("incoming"), 0U);
  EXPECT_EQ(entries("files"), 2U);
  EXPECT_TRUE(store.find("t", made.id));
}

TEST_F(FileStoreTest, RecordsThatCannotBeReadAreLeftOut) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const FileInfo made = put(store, info_of("t"));
  const fs::path home_of_t = home(store, "t");
  const std::string broken[] = {"",
                                "{",
                                "[]",
                                "{}",
                                R"({"id":5})",
                                record_of(made),
                                std::string(200'000, ' '),
                                R"({"id":"x"})"};
  std::vector<std::string> broken_ids;
  for (const std::string& text : broken) {
    broken_ids.push_back(new_file_id());
    spit(home_of_t / (broken_ids.back() + ".json"), text);
    spit(home_of_t / (broken_ids.back() + ".jsonl"), "kept");
  }
  fs::create_directory(home_of_t / (new_file_id() + ".json"));
  spit(home_of_t / "notes.json", "{}");
  EXPECT_EQ(ids(store, {}), std::vector{made.id});
  for (const std::string& id : broken_ids) {
    EXPECT_EQ(store.find("t", id).error().code, ErrorCode::kNotFound);
  }
  store.sweep(std::time(nullptr) + 2 * kDay);
  EXPECT_TRUE(fs::exists(home_of_t / (broken_ids[0] + ".jsonl")));  // Somebody may mend it.
}

TEST_F(FileStoreTest, AdoptTakesAFinishedFileOnce) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  const auto work = store.work_folder("batch_1");
  ASSERT_TRUE(work);
  EXPECT_EQ(*store.work_folder("batch_1"), *work);
  FileInfo info = info_of("t");
  info.purpose = "batch_output";
  info.id = new_file_id();
  EXPECT_EQ(store.adopt(*work / "out", info).error().code, ErrorCode::kNotFound);
  spit(*work / "out", "results");
  const auto first = store.adopt(*work / "out", info);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->id, info.id);
  EXPECT_EQ(first->bytes, 7U);
  EXPECT_FALSE(fs::exists(*work / "out"));
  EXPECT_EQ(text_of(store.path_of(*first)), "results");

  const auto again = store.adopt(*work / "out", info);  // The runner died before it noted that.
  ASSERT_TRUE(again);
  EXPECT_EQ(again->bytes, 7U);
  spit(*work / "out", "other results");
  ASSERT_TRUE(store.adopt(*work / "out", info));
  EXPECT_EQ(text_of(store.path_of(*first)), "results");
  EXPECT_EQ(ids(store, {}), std::vector{info.id});

  info.id.clear();
  const auto named = store.adopt(*work / "out", info);
  ASSERT_TRUE(named);
  EXPECT_TRUE(is_file_id(named->id));
  store.remove_work_folder("batch_1");
  EXPECT_FALSE(fs::exists(*work));
}

TEST_F(FileStoreTest, AdoptGoesOnWhereItDied) {
  FileStore store({.folder = folder_, .bytes_max = 0});
  put(store, info_of("t"));
  const auto work = store.work_folder("batch_1");
  FileInfo info = info_of("t");
  info.id = new_file_id();
  spit(store.path_of(info), "results");  // Renamed, and no record yet.
  EXPECT_FALSE(store.find("t", info.id));
  const auto adopted = store.adopt(*work / "out", info);
  ASSERT_TRUE(adopted) << adopted.error().message;
  EXPECT_EQ(adopted->bytes, 7U);
  EXPECT_TRUE(store.find("t", info.id));
}

TEST_F(FileStoreTest, AFolderThatCannotBeUsedIsFatal) {
  spit(folder_ / "plain", "a file");
  EXPECT_THROW(FileStore({.folder = folder_ / "plain", .bytes_max = 0}), FatalError);
}

}  // namespace
}  // namespace tessera::gateway
