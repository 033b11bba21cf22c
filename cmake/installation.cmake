# SPDX-License-Identifier: Apache-2.0
# Install rules, and the package that find_package(segmed COMPONENTS ...) finds. Each component has
# an export file of its own, so that one whose library is missing takes nothing else with it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/segmed)

foreach(name IN LISTS segmed_available)
  set(target segmed_${name})
  set(file_sets FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  if(name STREQUAL "segmed")
    set(target segmed)
    list(APPEND file_sets FILE_SET kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  elseif(name STREQUAL "kernels")
    set(file_sets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
  install(TARGETS ${target} EXPORT segmed-${name} ${file_sets})
  install(EXPORT segmed-${name} NAMESPACE segmed:: DESTINATION ${package_dir})
endforeach()

set(segmed_packaged ${segmed_available})
list(REMOVE_ITEM segmed_packaged segmed)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/segmedConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/segmedConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/segmedConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
file(GLOB find_modules ${CMAKE_CURRENT_LIST_DIR}/Find*.cmake)
install(FILES ${PROJECT_BINARY_DIR}/segmedConfig.cmake ${PROJECT_BINARY_DIR}/segmedConfigVersion.cmake
              ${find_modules} DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE TYPE DOC)
