// The health check of MongoDB in compose.yaml. Makes what is missing (the replica set of this one node, the user of the
// service) and ends with 0 once the node is primary. May be repeated.

const { MONGO_INITDB_ROOT_USERNAME, MONGO_INITDB_ROOT_PASSWORD, DATABASE_PASSWORD } = process.env;
const NOT_YET_INITIALIZED = 94;
const USER_EXISTS = 51003;

const admin = db.getSiblingDB("admin");
admin.auth(MONGO_INITDB_ROOT_USERNAME, MONGO_INITDB_ROOT_PASSWORD);

try {
  rs.status();
} catch (error) {
  if (error.code !== NOT_YET_INITIALIZED) throw error;
  rs.initiate({ _id: "orgstead", members: [{ _id: 0, host: "mongodb:27017" }] });
}

if (!db.hello().isWritablePrimary) quit(1);

try {
  db.getSiblingDB("orgstead").createUser({
    user: "orgstead",
    pwd: DATABASE_PASSWORD,
    // The directory, and the spaces of organizations.
    roles: [
      { role: "readWrite", db: "orgstead" },
      { role: "readWrite", db: "orgstead_data" },
    ],
  });
} catch (error) {
  if (error.code !== USER_EXISTS) throw error;
}
