#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "clients/cli/io/readers.hpp"
#include "common/check.hpp"

namespace tessera::cli {

// Tests that write a file and read its records.
class ReadFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "read_files_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
    return folder_ + "/" + name;
  }

  std::vector<Record> read(const std::string& name, const std::string& content,
                           const ReadOptions& options = {}) {
    const auto reader = open_readers({write(name, content)}, options, no_stop_);
    description_ = reader->description();
    std::vector<Record> records;
    for (Record record; reader->next(record);) {
      records.push_back(record);
    }
    EXPECT_EQ(reader->bytes_read(), content.size());
    return records;
  }

  // "id=text|id=text", errors as their code, records without id as "~".
  static std::string shown(const std::vector<Record>& records) {
    std::string all;
    for (const Record& record : records) {
      all += all.empty() ? "" : "|";
      all += record.id.kind == RecordId::Kind::kNone ? "~" : record.id.as_json();
      all += "=";
      all += record.error.code == ErrorCode::kOk ? record.text
                                                 : std::string(to_string(record.error.code));
    }
    return all;
  }

  std::string refusal(const std::string& name, const std::string& content,
                      const ReadOptions& options = {}) {
    try {
      const auto records = read(name, content, options);
      return "read as " + shown(records);
    } catch (const FatalError& error) {
      return error.what();
    }
  }

  const std::atomic<bool> no_stop_{false};
  std::string folder_;
  std::string description_;  // Of what was read last.
};

}  // namespace tessera::cli
